"""Reads an ONNX file and holds it against contract 1."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from engine_build.anomalib_export import is_anomalib_export, older_export, wrapped
from engine_build.graph_interface import dimensions, inputs_of
from engine_build.openvino_export import read_openvino
from engine_runtime.engine import CONTRACT, FRAMES, MAPS, QUANTILES, map_output, outputs_of
from engine_runtime.manifest import FP32_NODES, MOST_MAPS, VERSION_1_MAPS, names_in
from foundation.errors import InputError
from pictures.frames import Size
from pictures.map_quantiles import MAP_NORMALISATION, MAP_NORMALISATIONS, MAP_WEIGHTS, weights_in

_MAP_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})


@dataclass(frozen=True)
class Graph:
    """An ONNX graph that keeps contract 1."""

    name: str
    content: bytes
    """The whole model, serialised; weights that lay in files of their own are inside."""
    source_sha256: str
    input_size: Size
    maps: dict[str, str]
    """Map → the output that holds it before normalisation, in the order of the quantiles' rows."""
    metadata: dict[str, str]

    @property
    def outputs(self) -> tuple[str, ...]:
        """All outputs of contract 1."""
        return outputs_of(self.maps)

    def fp32_tensors(self) -> set[str]:
        """Name what the nodes give that stay FP32 in whatever precision the rest is built.

        These are the nodes that the metadata name, and all that compute with what they give.
        """
        prefixes = names_in(self.metadata, FP32_NODES)
        tensors: set[str] = set()
        for node in onnx.load_model_from_string(self.content).graph.node if prefixes else ():
            if node.name.startswith(prefixes) or not tensors.isdisjoint(node.input):
                tensors.update(node.output)
        return tensors


def read_graph(path: Path) -> Graph:
    """Read and validate an ONNX file or a model of OpenVINO; an export of anomalib is brought to contract 1.

    Raises:
        InputError: the file is missing or is neither; its metadata, inputs or outputs are not those of
            contract 1; a weight is not a finite number.
    """
    if path.suffix in {".xml", ".bin"}:
        model, source = read_openvino(path.with_suffix(".xml"))
    else:
        model, source = _read_onnx(path)
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX file: it holds no graph")
    normalisation = older_export(model, path)
    if is_anomalib_export(model.graph):
        _check_model(path, model)
        model = wrapped(model, path, normalisation)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    maps = _maps(path, metadata)
    _check_map_weights(path, metadata, len(maps))
    input_size = _check_inputs(path, model.graph, len(maps))
    _check_outputs(path, model.graph, maps)
    _check_fp32_nodes(path, model.graph, metadata)
    _check_weights(path, model.graph)
    _check_model(path, model)
    return Graph(
        name=path.stem,
        content=model.SerializeToString(),
        source_sha256=hashlib.sha256(source).hexdigest(),
        input_size=input_size,
        maps=maps,
        metadata=metadata,
    )


def _read_onnx(path: Path) -> tuple[onnx.ModelProto, bytes]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(source)
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file, or a damaged one{_advice(path, source)}") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: its external weights cannot be read: {_first_line(error)}") from error
    return model, source


def _advice(path: Path, source: bytes) -> str:
    """Say what to do with what people give instead of an ONNX file."""
    if path.suffix in {".pt", ".pth", ".ckpt"} or source.startswith(b"PK"):
        if path.suffix == ".engine":
            return "; it is an engine already: run calibrate on it"
        if path.suffix == ".ckpt" or b"anomalib" in source:
            return f"; take anomalib's checkpoint over first: import-anomalib {path}"
        return f"; export a checkpoint first: efficientad export {path} -o {path.with_suffix('.onnx')}"
    return ""


def _maps(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    """Read which maps a graph gives."""
    version = metadata.get(CONTRACT, "1")
    if version == "1":
        return VERSION_1_MAPS
    if version != "2":
        raise InputError(
            f"{path}: metadata {CONTRACT} is {version!r:.40}; this build-engine reads versions 1 and 2"
        )
    names = names_in(metadata, MAPS)
    named = all(_MAP_NAME.fullmatch(name) for name in names)
    if not (named and 1 <= len(names) <= MOST_MAPS and len(set(names)) == len(names)):
        raise InputError(
            f"{path}: metadata {MAPS} is {metadata.get(MAPS)!r:.80}; expected 1 to {MOST_MAPS} different"
            " names of lower-case letters, digits and underscores, separated by commas"
        )
    normalisation = metadata.get(MAP_NORMALISATION, MAP_NORMALISATIONS[0])
    if normalisation not in MAP_NORMALISATIONS:
        raise InputError(
            f"{path}: metadata {MAP_NORMALISATION} is {normalisation!r:.40};"
            f" expected one of {', '.join(MAP_NORMALISATIONS)}"
        )
    return {name: map_output(name) for name in names}


def _check_map_weights(path: Path, metadata: dict[str, str], maps: int) -> None:
    try:
        weights_in(metadata, maps)
    except ValueError as error:
        raise InputError(
            f"{path}: metadata {MAP_WEIGHTS} is {metadata[MAP_WEIGHTS]!r:.80}; expected {maps} numbers"
            " above 0, separated by commas"
        ) from error


def _check_inputs(path: Path, graph: onnx.GraphProto, maps: int) -> Size:
    inputs = inputs_of(graph)
    found = ", ".join(_described(name, tensor) for name, tensor in inputs.items()) or "none"
    refusal = InputError(
        f"{path}: inputs are {found}; expected frames uint8 N×H×W×3 and quantiles float32 {maps}×2, "
        "as efficientad export writes them"
    )
    if set(inputs) != {FRAMES, QUANTILES}:
        raise refusal
    frames, quantiles = inputs[FRAMES], inputs[QUANTILES]
    if frames.elem_type != TensorProto.UINT8 or quantiles.elem_type != TensorProto.FLOAT:
        raise refusal
    match dimensions(frames), dimensions(quantiles):
        case ([str(), int(height), int(width), 3], [rows, 2]) if rows == maps and height > 0 and width > 0:
            return Size(height, width)
        case ([int(batch), int(), int(), 3], [rows, 2]) if rows == maps:
            raise InputError(
                f"{path}: frames is fixed to a batch of {batch}; export it with a free batch dimension"
            )
    raise refusal


def _check_outputs(path: Path, graph: onnx.GraphProto, maps: dict[str, str]) -> None:
    names = {value.name for value in graph.output}
    missing = [name for name in outputs_of(maps) if name not in names]
    if missing:
        found = ", ".join(_described(value.name, value.type.tensor_type) for value in graph.output)
        raise InputError(f"{path}: output {', '.join(missing)} is missing; found {found or 'none'}")


def _check_fp32_nodes(path: Path, graph: onnx.GraphProto, metadata: dict[str, str]) -> None:
    for prefix in names_in(metadata, FP32_NODES):
        if not prefix or not any(node.name.startswith(prefix) for node in graph.node):
            raise InputError(
                f"{path}: metadata {FP32_NODES} names {prefix!r:.60}, but no node's name begins with it"
            )


def _check_model(path: Path, model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"{path}: not a valid ONNX graph: {_first_line(error)}") from error


def _check_weights(path: Path, graph: onnx.GraphProto) -> None:
    for weight in _weights(graph):
        try:
            value = numpy_helper.to_array(weight)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: weight {weight.name!r} is damaged: {_first_line(error)}") from error
        wrong = int(np.count_nonzero(~np.isfinite(value.astype(np.float64))))
        if wrong:
            raise InputError(
                f"{path}: weight {weight.name!r} has {wrong} of {value.size} values that are NaN or infinite;"
                " train the model again"
            )


def _weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from (weight for weight in graph.initializer if weight.data_type in _FLOATS)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type in _FLOATS:
                yield attribute.t
            if attribute.HasField("g"):
                yield from _weights(attribute.g)


def _described(name: str, tensor: onnx.TypeProto.Tensor) -> str:
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    kind = {"float": "float32", "undefined": "not a tensor"}.get(kind, kind)
    return f"{name} {kind} {'×'.join(map(str, dimensions(tensor)))}".rstrip()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
