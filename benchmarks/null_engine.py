"""An engine that judges nothing: what is left is the daemon's own cost."""

from pathlib import Path

import numpy as np
import onnx
from inspection import command
from onnx import TensorProto, helper, numpy_helper
from passing_calibration import write_passing_calibration

SIZE = 64


def make_null_engine(folder: Path, side: int = SIZE) -> tuple[str, str]:
    """Build an engine whose score is the grey of one pixel, and a calibration that lets everything pass.

    Args:
        folder: for the files.
        side: of the square frames that it takes, pixels.

    Returns:
        The names of both files in ``folder``.
    """
    nodes = [
        helper.make_node("Slice", ["frames", "zero", "one", "rows"], ["row"]),
        helper.make_node("Slice", ["row", "zero", "one", "columns"], ["pixel"]),
        helper.make_node("Slice", ["pixel", "zero", "one", "channels"], ["blue"]),
        helper.make_node("Cast", ["blue"], ["value"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["value", "channels"], ["map"]),
        helper.make_node("Slice", ["quantiles", "zero", "one", "rows_of_two"], ["q"]),
        helper.make_node("ReduceSum", ["q"], ["q_sum"], keepdims=0),
        helper.make_node("Mul", ["q_sum", "nothing"], ["q_nothing"]),
        helper.make_node("Add", ["map", "q_nothing"], ["anomaly_map"]),
        helper.make_node("Identity", ["map"], ["local_map"]),
        helper.make_node("Identity", ["map"], ["global_map"]),
        helper.make_node("ReduceMax", ["anomaly_map", "map_axes"], ["score"], keepdims=0),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "rows": np.array([1], np.int64),
        "columns": np.array([2], np.int64),
        "channels": np.array([3], np.int64),
        "rows_of_two": np.array([0], np.int64),
        "map_axes": np.array([1, 2], np.int64),
        "nothing": np.array(0, np.float32),
    }
    maps = ("anomaly_map", "local_map", "global_map")
    graph = helper.make_graph(
        nodes,
        "null",
        [
            helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", side, side, 3]),
            helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [2, 2]),
        ],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 1]) for name in maps),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "null.onnx")
    command("build-engine", folder / "null.onnx", "--runtime", "onnxruntime", "--max-batch", "16", "--fast")
    write_passing_calibration(folder / "null.calibration.yaml", folder / "null.engine")
    return "null.engine", "null.calibration.yaml"
