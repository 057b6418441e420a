"""A model that keeps contract 1 and whose score anyone can predict: the brightest spot of a frame.

It lets the daemon's tests say what each verdict must be, with a real engine of a real runtime.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibration.calibration_file import Calibration, write_calibration
from engine_runtime.engine_file import read_manifest

SIZE = 64
CELL = 8
THRESHOLD = 0.5
"""Of a score between 0 (black) and 1 (a white cell of CELL × CELL pixels)."""

UNIT_QUANTILES = {"local": (0.0, 0.1), "global": (0.0, 0.1)}
"""With these the score is the brightness itself."""


def brightness_model(path: Path) -> Path:
    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    weights: list[onnx.TensorProto] = []
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", constant("mean", np.full((1, 3, 1, 1), 1 / 765))], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        helper.make_node("Squeeze", ["cells", constant("channel", [1], np.int64)], ["local_map"]),
        helper.make_node("Identity", ["local_map"], ["global_map"]),
    ]
    for row, name in enumerate(("local_map", "global_map")):
        nodes += [
            helper.make_node("Gather", ["quantiles", constant(f"row{row}", row, np.int64)], [f"q{row}"]),
            helper.make_node("Gather", [f"q{row}", constant(f"a{row}", 0, np.int64)], [f"qa{row}"]),
            helper.make_node("Gather", [f"q{row}", constant(f"b{row}", 1, np.int64)], [f"qb{row}"]),
            helper.make_node("Sub", [name, f"qa{row}"], [f"above{row}"]),
            helper.make_node("Sub", [f"qb{row}", f"qa{row}"], [f"range{row}"]),
            helper.make_node("Div", [f"above{row}", f"range{row}"], [f"normal{row}"]),
        ]
    nodes += [
        helper.make_node("Add", ["normal0", "normal1"], ["sum"]),
        helper.make_node("Mul", ["sum", constant("half", 0.05)], ["anomaly_map"]),
        helper.make_node(
            "ReduceMax", ["anomaly_map", constant("hw", [1, 2], np.int64)], ["score"], keepdims=0
        ),
    ]
    maps = ("anomaly_map", "local_map", "global_map")
    cells = SIZE // CELL
    graph = helper.make_graph(
        nodes,
        "brightness",
        [
            helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", SIZE, SIZE, 3]),
            helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [2, 2]),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", cells, cells]) for n in maps),
        ],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def calibrate(engine: Path, path: Path, threshold: float, **about: object) -> None:
    """Write a calibration that leaves the score what it is: the brightness; ``about`` are other entries."""
    calibration = Calibration(
        format_version=1,
        model=read_manifest(engine).model,
        engine_sha256=read_manifest(engine).payload_sha256,
        quantiles=UNIT_QUANTILES,
        threshold=threshold,
        wanted_false_reject_rate=0.001,
        false_reject_rate_interval=(0.0, 0.01),
        confidence=0.95,
        good_images=100,
        good_images_sha256="0" * 64,
        roi=None,
        made_at="2026-01-01T00:00:00Z",
        tool_version="test",
    )
    write_calibration(path, calibration.model_copy(update=about))
