"""Reads an ONNX file and holds it against contract 1."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from engine_build.anomalib_export import is_anomalib_export, wrapped
from engine_build.graph_interface import dimensions, inputs_of
from engine_runtime.engine import FRAMES, OUTPUTS, QUANTILES
from foundation.errors import InputError
from pictures.frames import Size

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})


@dataclass(frozen=True)
class Graph:
    """An ONNX graph that keeps contract 1."""

    name: str
    content: bytes
    """The whole model, serialised; weights that lay in files of their own are inside."""
    source_sha256: str
    input_size: Size
    metadata: dict[str, str]


def read_graph(path: Path) -> Graph:
    """Read and validate an ONNX file; an export of anomalib is brought to contract 1.

    Raises:
        InputError: the file is missing or no ONNX; its inputs or outputs are not those of contract 1; a
            weight is not a finite number.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(source)
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file, or a damaged one") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: its external weights cannot be read: {_first_line(error)}") from error
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX file: it holds no graph")
    if is_anomalib_export(model.graph):
        _check_model(path, model)
        model = wrapped(model, path)
    input_size = _check_inputs(path, model.graph)
    _check_outputs(path, model.graph)
    _check_weights(path, model.graph)
    _check_model(path, model)
    return Graph(
        name=path.stem,
        content=model.SerializeToString(),
        source_sha256=hashlib.sha256(source).hexdigest(),
        input_size=input_size,
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _check_inputs(path: Path, graph: onnx.GraphProto) -> Size:
    inputs = inputs_of(graph)
    found = ", ".join(_described(name, tensor) for name, tensor in inputs.items()) or "none"
    refusal = InputError(
        f"{path}: inputs are {found}; expected frames uint8 N×H×W×3 and quantiles float32 2×2, "
        "as efficientad export writes them"
    )
    if set(inputs) != {FRAMES, QUANTILES}:
        raise refusal
    frames, quantiles = inputs[FRAMES], inputs[QUANTILES]
    if frames.elem_type != TensorProto.UINT8 or quantiles.elem_type != TensorProto.FLOAT:
        raise refusal
    match dimensions(frames), dimensions(quantiles):
        case ([str(), int(height), int(width), 3], [2, 2]) if height > 0 and width > 0:
            return Size(height, width)
        case ([int(batch), int(), int(), 3], [2, 2]):
            raise InputError(
                f"{path}: frames is fixed to a batch of {batch}; export it with a free batch dimension"
            )
    raise refusal


def _check_outputs(path: Path, graph: onnx.GraphProto) -> None:
    names = {value.name for value in graph.output}
    missing = [name for name in OUTPUTS if name not in names]
    if missing:
        found = ", ".join(_described(value.name, value.type.tensor_type) for value in graph.output)
        raise InputError(f"{path}: output {', '.join(missing)} is missing; found {found or 'none'}")


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
                " train the model anew"
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
    kind = {"float": "float32", "undefined": "of no tensor type"}.get(kind, kind)
    return f"{name} {kind} {'×'.join(map(str, dimensions(tensor)))}".rstrip()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
