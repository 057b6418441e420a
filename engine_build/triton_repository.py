"""Writes a model for inference servers: ONNX with the quantiles inside, in a folder as Triton reads it."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_build.graph import Graph
from engine_runtime.engine import FRAMES, QUANTILES, SCORE, Quantiles
from foundation.errors import InputError, refused_by_system
from foundation.files import write_whole
from pictures.frames import Size

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_TYPES: Final[dict[int, str]] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.DOUBLE: "TYPE_FP64",
}


class ServedModel(NamedTuple):
    """A model as it lies in a repository."""

    name: str
    version: str
    sha256: str


def write_model(
    folder: Path, name: str, graph: Graph, quantiles: Quantiles, *, map_size: Size, max_batch: int
) -> ServedModel:
    """Add a model to a repository, or a new version of one; versions that lines use stay as they are.

    Args:
        folder: of the repository; is made where it does not exist.
        name: of the model there.
        graph: what it computes.
        quantiles: K×2, of the calibration.
        map_size: of its maps.
        max_batch: the most frames that the server may put together.

    Raises:
        InputError: the folder cannot be written, or the name is none for a folder.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--model-name: found {name!r:.80}, expected letters, digits, '_', '.' or '-'")
    content = with_quantiles(graph, quantiles)
    model = folder / name
    try:
        versions = sorted(int(path.name) for path in model.glob("*") if path.name.isdecimal())
        for number in versions:
            file = model / str(number) / "model.onnx"
            if file.exists() and file.read_bytes() == content:
                break
        else:
            number = versions[-1] + 1 if versions else 1
            (model / str(number)).mkdir(parents=True)
            write_whole(model / str(number) / "model.onnx", content)
        write_whole(model / "config.pbtxt", _config(name, graph, content, map_size, max_batch).encode())
    except OSError as error:
        raise refused_by_system(f"{model}: cannot be written: {error.strerror}", error) from error
    return ServedModel(name, str(number), hashlib.sha256(content).hexdigest())


def with_quantiles(graph: Graph, quantiles: Quantiles) -> bytes:
    """Give the graph with its quantiles inside and ``score`` as N×1.

    An input without a batch axis, and an output without another one, are nothing that Triton's batcher takes.
    """
    model = onnx.load_model_from_string(graph.content)
    inner = model.graph
    for kept in [value for value in inner.input if value.name == QUANTILES]:
        inner.input.remove(kept)
    inner.initializer.append(numpy_helper.from_array(np.asarray(quantiles, np.float32), QUANTILES))
    flat = f"{SCORE}_n"
    for node in inner.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == SCORE:
                    names[index] = flat
    inner.initializer.append(numpy_helper.from_array(np.array([-1, 1], np.int64), f"{SCORE}_shape"))
    inner.node.append(helper.make_node("Reshape", [flat, f"{SCORE}_shape"], [SCORE]))
    for value in inner.output:
        if value.name == SCORE:
            batch = value.type.tensor_type.shape.dim[0].dim_param or "batch"
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(SCORE, kind, [batch, 1]))
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise InputError(f"{graph.name}: its quantiles cannot be put inside: {error}") from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _config(name: str, graph: Graph, content: bytes, map_size: Size, max_batch: int) -> str:
    kinds: Mapping[str, int] = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.load_model_from_string(content).graph.output
    }
    outputs = ",\n".join(
        f'  {{ name: "{output}" data_type: {_TYPES.get(kinds[output], "TYPE_FP32")} dims: [ {dims} ] }}'
        for output in graph.outputs
        for dims in ["1" if output == SCORE else f"{map_size.height}, {map_size.width}"]
    )
    height, width = graph.input_size
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {max_batch}\n"
        f'input [\n  {{ name: "{FRAMES}" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }}\n]\n'
        f"output [\n{outputs}\n]\n"
        "# Frames of several lines in one batch; none waits for others to come.\n"
        "dynamic_batching { max_queue_delay_microseconds: 0 }\n"
        "# A line asks for the version that it was calibrated on, whichever is the newest.\n"
        "version_policy: { all { } }\n"
    )
