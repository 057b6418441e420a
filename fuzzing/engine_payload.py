"""Engine files, sound but for a payload whose SHA-256 fits, through ``try_out`` and ``open_engine``.

The first byte chooses the runtime, the rest is an ONNX graph. That is what somebody could bring about who
may write engine files: the hash protects from damage, not from them.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from engine_runtime.engine import uncalibrated
from engine_runtime.engine_file import write_engine
from engine_runtime.open import open_engine
from engine_runtime.trial import try_out
from foundation.errors import EngineFailed, EngineRefused
from fuzzing.engine_file import SOUND
from fuzzing.mutation import mutate_bytes
from fuzzing.target import Chance, must_be_one_line
from pictures.frames import Size

_SIZE = 16


class Target:
    """Every payload runs, or is refused in one line, or fails as an engine that broke."""

    documented = (EngineRefused, EngineFailed)
    longest = 8192
    words = (
        "frames",
        "quantiles",
        "score",
        "anomaly_map",
        "Cast",
        "Mul",
        "Squeeze",
        "ReduceMax",
        "Conv",
        "batch",
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "line3.engine"

    def seeds(self) -> list[bytes]:
        graph = _little_graph()
        return [b"\0" + graph, b"\1" + graph]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        if chance.random() < 0.5:
            return data[:1] + mutate_bytes(data[1:], chance)
        return data[:1] + _another_graph(data[1:], chance)

    def run(self, data: bytes) -> None:
        runtime: Literal["onnxruntime", "openvino"] = "onnxruntime" if data[:1] < b"\1" else "openvino"
        payload = data[1:]
        changes = {
            "runtime": runtime,
            "input_size": Size(_SIZE, _SIZE),
            "map_size": Size(1, 1),
            "max_batch": 2,
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
        }
        write_engine(self._path, SOUND.model_copy(update=changes), payload)
        try:
            try_out(self._path, threads=1, trusted=None)  # as a line does before it opens an engine itself
            engine = open_engine(self._path, threads=1)
        except EngineRefused as error:
            must_be_one_line(error, self._path)
            raise
        try:
            frame = np.zeros((_SIZE, _SIZE, 3), np.uint8)
            assert engine.infer([frame], uncalibrated(engine.manifest.maps))["score"].shape == (1,)
        finally:
            engine.close()


def _little_graph() -> bytes:
    """Make a graph that keeps contract 1 and does next to nothing."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: object) -> str:
        constants.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    constants: list[onnx.TensorProto] = []
    axes = constant("axes", [1, 2, 3])
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels", axes], ["most"], keepdims=1),
        helper.make_node("Squeeze", ["most", constant("last", [3])], ["local_map"]),
        helper.make_node("ReduceMax", ["quantiles"], ["q"], keepdims=0),
        helper.make_node("Mul", ["local_map", "q"], ["anomaly_map"]),
        helper.make_node("Identity", ["local_map"], ["global_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", constant("hw", [1, 2])], ["score"], keepdims=0),
    ]
    maps = ("anomaly_map", "local_map", "global_map")
    graph = helper.make_graph(
        nodes,
        "little",
        [
            helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", _SIZE, _SIZE, 3]),
            helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [2, 2]),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 1]) for name in maps),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _another_graph(data: bytes, chance: Chance) -> bytes:
    """Change a graph where it stays a graph: an operator, an input, a dimension, a constant."""
    import onnx

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        graph = model.graph
        node = chance.choice(graph.node)
        match chance.randrange(7):
            case 0:
                node.op_type = chance.choice(
                    ("Conv", "Gather", "Reshape", "If", "Slice", "Resize", "Nope", "Tile")
                )
            case 1:
                node.input[chance.randrange(len(node.input))] = chance.choice(graph.node).output[0]
            case 2:
                graph.node.remove(node)
            case 3:
                shape = chance.choice((*graph.input, *graph.output)).type.tensor_type.shape
                chance.choice(shape.dim).dim_value = chance.choice((-1, 0, 1, 2, 16, 2**31, 2**62))
            case 4:
                tensor = chance.choice(graph.initializer)
                tensor.dims[:] = [chance.choice((-1, 0, 1, 2, 3, 2**33))]
            case 5:
                tensor = chance.choice(graph.initializer)
                values = [
                    chance.choice((-4, -1, 0, 1, 2, 3, 4, 2**62)) for _ in range(chance.randrange(1, 4))
                ]
                tensor.raw_data = np.array(values, np.int64).tobytes()
            case 6:
                model.opset_import[0].version = chance.choice((0, 1, 7, 13, 18, 23, 99))
        return bytes(model.SerializeToString())
    except Exception:
        return mutate_bytes(data, chance)
