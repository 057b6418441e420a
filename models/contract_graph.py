"""What the graphs of all methods share: the nodes of contract 1 between the frames and the score."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_runtime.engine import ANOMALY_MAP, CONTRACT, FRAMES, MAPS, QUANTILES, SCORE, map_output
from pictures.frames import Size

OPSET = 17

BLOCKS = 4
"""Of the columns of a triangular matrix: with 4, six tenths of it are kept; more of them cost more time."""


class ContractGraph:
    """Nodes and weights, in the order they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant of any shape and type, and give its name."""
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, also its name, and give that."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def triangular_product(self, rows: str, matrices: NDArray[np.float32], output: str) -> str:
        """Multiply with upper triangular matrices, in blocks of columns without most of the zeros.

        Reading the matrices takes longer than to compute with them, and they are most of the file.

        Args:
            rows: P×N×D.
            matrices: P×D×D, upper triangular each.
            output: name of the product, P×N×D.
        """
        columns = matrices.shape[-1]
        first = self.weight(f"{output}/block_start", np.array([0], dtype=np.int64))
        axis = self.weight(f"{output}/block_axis", np.array([2], dtype=np.int64))
        start, parts = 0, []
        for block in range(1, BLOCKS + 1):
            end = -(-columns * block // BLOCKS)
            if end == start:  # there are fewer columns than blocks
                continue
            name = f"{output}/block_{block}"
            until = self.weight(f"{name}_end", np.array([end], dtype=np.int64))
            self.node("Slice", [rows, first, until, axis], f"{name}_rows")
            matrix = self.weight(f"{name}_matrix", np.ascontiguousarray(matrices[:, :end, start:end]))
            parts.append(self.node("MatMul", [f"{name}_rows", matrix], name))
            start = end
        return self.node("Concat", parts, output, axis=2)

    def combine(self, planes: Mapping[str, str]) -> None:
        """Normalise the maps, take their mean and its largest value.

        Args:
            planes: name of each map → its tensor, N×1×h×w.
        """
        self.node("Concat", list(planes.values()), "maps", axis=1)
        first = self.weight("axis_1", np.array([1], dtype=np.int64))
        for name, plane in planes.items():
            self.node("Squeeze", [plane, first], map_output(name))
        column = self.weight("quantile_shape", np.array([len(planes), 1, 1], dtype=np.int64))
        self.nodes.append(
            helper.make_node("Split", [QUANTILES], ["q_a", "q_b"], name="split_quantiles", axis=1)
        )
        self.node("Sub", ["q_b", "q_a"], "spread")
        self.node("Reshape", ["q_a", column], "lower")
        self.node("Reshape", ["spread", column], "range")
        self.node("Sub", ["maps", "lower"], "above")
        self.node("Mul", ["above", self.weight("tenth", np.array(0.1, dtype=np.float32))], "tenths")
        self.node("Div", ["tenths", "range"], "normalised")
        self.node("ReduceMean", ["normalised"], ANOMALY_MAP, axes=[1], keepdims=0)
        self.node("ReduceMax", [ANOMALY_MAP], SCORE, axes=[1, 2], keepdims=0)

    def model(
        self, method: str, size: Size, cells: Size, maps: tuple[str, ...], metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """Finish.

        Args:
            method: by which it was learned.
            size: of the frames.
            cells: height and width of the maps.
            maps: their names, in the order of the quantiles' rows.
            metadata: what it says besides of itself; its ``tool_version`` becomes the producer's.
        """
        value = helper.make_tensor_value_info
        outputs = (ANOMALY_MAP, *map(map_output, maps))
        proto = helper.make_model(
            helper.make_graph(
                self.nodes,
                method,
                [
                    value(FRAMES, TensorProto.UINT8, ["N", *size, 3]),
                    value(QUANTILES, TensorProto.FLOAT, [len(maps), 2]),
                ],
                [
                    value(SCORE, TensorProto.FLOAT, ["N"]),
                    *(value(name, TensorProto.FLOAT, ["N", *cells]) for name in outputs),
                ],
                self.weights,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=8,
            producer_name=method,
            producer_version=metadata["tool_version"],
        )
        helper.set_model_props(proto, {CONTRACT: "2", MAPS: ",".join(maps), **metadata})
        onnx.checker.check_model(proto, full_check=True)
        return proto
