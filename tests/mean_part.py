"""A small real model for the simulated line: how far each spot is from what it looks like on good parts.

It learns in a second, so tests have a line that rejects drawn defects, and heat maps of where they are.
"""

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from daemon.capture.drivers.simulated import SimulatedLine

SIZE = 128
CELL = 4
CELLS = SIZE // CELL
GOOD_PARTS = 150


def mean_part_model(path: Path, *, seed: int = 7) -> float:
    """Write the model and give a threshold that passes nearly all good parts."""
    line = SimulatedLine(seed=seed, width=SIZE, height=SIZE)
    seen = np.stack([_cells(line.frame(index)[0]) for index in range(GOOD_PARTS)])
    mean, spread = seen.mean(axis=0), seen.std(axis=0) + 2.0
    scores = [_smooth(np.abs(cells - mean) / spread).max() / 10 for cells in seen]
    _save(path, mean, spread)
    return float(np.quantile(scores, 0.99) * 1.1)


def _cells(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = np.asarray(frame, np.float32).mean(axis=2)
    level = np.asarray(grey - grey.mean(), np.float32)  # the lamp drifts
    return np.asarray(level.reshape(CELLS, CELL, CELLS, CELL).mean(axis=(1, 3)), np.float32)


def _smooth(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(cells, (3, 3), borderType=cv2.BORDER_CONSTANT), np.float32)


def _save(path: Path, mean: NDArray[np.float32], spread: NDArray[np.float32]) -> None:
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("ReduceMean", ["planes", constant("channels", [1], np.int64)], ["grey"], keepdims=1),
        node("ReduceMean", ["grey", constant("rows_columns", [2, 3], np.int64)], ["lamp"], keepdims=1),
        node("Sub", ["grey", "lamp"], ["level"]),
        node("AveragePool", ["level"], ["cells"], kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        node("Sub", ["cells", constant("mean", mean)], ["away"]),
        node("Abs", ["away"], ["distance"]),
        node("Div", ["distance", constant("spread", spread)], ["relative"]),
        node("AveragePool", ["relative"], ["smooth"], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
        node("Squeeze", ["smooth", constant("channel", [1], np.int64)], ["local_map"]),
        node("Identity", ["local_map"], ["global_map"]),
        node("Gather", ["quantiles", constant("local", 0, np.int64)], ["pair"]),
        node("Gather", ["pair", constant("first", 0, np.int64)], ["a"]),
        node("Gather", ["pair", constant("second", 1, np.int64)], ["b"]),
        node("Sub", ["local_map", "a"], ["above"]),
        node("Sub", ["b", "a"], ["range"]),
        node("Div", ["above", "range"], ["normal"]),
        node("Mul", ["normal", constant("tenth", 0.01)], ["anomaly_map"]),
        node("ReduceMax", ["anomaly_map", constant("hw", [1, 2], np.int64)], ["score"], keepdims=0),
    ]
    maps = ("anomaly_map", "local_map", "global_map")
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "mean-part",
        [
            tensor("frames", TensorProto.UINT8, ["batch", SIZE, SIZE, 3]),
            tensor("quantiles", TensorProto.FLOAT, [2, 2]),
        ],
        [
            tensor("score", TensorProto.FLOAT, ["batch"]),
            *(tensor(name, TensorProto.FLOAT, ["batch", CELLS, CELLS]) for name in maps),
        ],
        weights,
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
