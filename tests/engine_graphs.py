"""Small graphs that keep contract 1, made without torch: an EfficientAD in little with random weights."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Graph:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, *inputs: str, output: str = "", domain: str = "", **attributes: object) -> str:
        output = output or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def convolution(self, inputs: str, channels: tuple[int, int], kernel: int) -> str:
        given, made = channels
        weight = self.random.normal(0, (2 / (given * kernel**2)) ** 0.5, (made, given, kernel, kernel))
        bias = self.random.normal(0, 0.1, made)
        return self.add("Conv", inputs, self.constant(weight), self.constant(bias))

    def network(self, image: str, width: int) -> str:
        x = self.add("Relu", self.convolution(image, (3, width), 4))
        x = self.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = self.add("Relu", self.convolution(x, (width, 2 * width), 4))
        x = self.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = self.add("Relu", self.convolution(x, (2 * width, 2 * width), 3))
        return self.convolution(x, (2 * width, 2 * width), 4)

    def squared_distance(self, a: str, b: str) -> str:
        difference = self.add("Sub", a, b)
        square = self.add("Mul", difference, difference)
        return self.add("ReduceMean", square, self.constant([1], np.int64), keepdims=0)

    def normalised(self, anomaly_map: str, row: int) -> str:
        """Paper §4.4: 0.1 (map - q_a) / (q_b - q_a)."""
        axis = self.constant(0, np.int64)
        quantiles = self.add("Gather", "quantiles", self.constant(row, np.int64), axis=0)
        q_a = self.add("Gather", quantiles, axis, axis=0)
        q_b = self.add("Gather", quantiles, self.constant(1, np.int64), axis=0)
        scaled = self.add("Div", self.add("Sub", anomaly_map, q_a), self.add("Sub", q_b, q_a))
        return self.add("Mul", scaled, self.constant(0.1))


def little_model(
    height: int = 64, width: int = 64, *, channels: int = 4, seed: int = 0, batch: int | str = "batch"
) -> onnx.ModelProto:
    """Build a student–teacher pair and an "autoencoder" with random weights, conforming to contract 1."""
    graph = _Graph(seed)
    image = graph.add("Cast", "frames", to=TensorProto.FLOAT)
    image = graph.add("Transpose", image, perm=[0, 3, 1, 2])
    image = graph.add("Sub", graph.add("Mul", image, graph.constant(1 / 60)), graph.constant(2.0))
    teacher, student, autoencoder = (graph.network(image, channels) for _ in range(3))
    local_map = graph.squared_distance(teacher, student)
    global_map = graph.squared_distance(autoencoder, student)
    graph.add("Identity", local_map, output="local_map")
    graph.add("Identity", global_map, output="global_map")
    total = graph.add("Add", graph.normalised(local_map, 0), graph.normalised(global_map, 1))
    anomaly_map = graph.add("Mul", total, graph.constant(0.5), output="anomaly_map")
    graph.add("ReduceMax", anomaly_map, graph.constant([1, 2], np.int64), output="score", keepdims=0)
    maps = ("anomaly_map", "local_map", "global_map")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "little",
            [
                helper.make_tensor_value_info("frames", TensorProto.UINT8, [batch, height, width, 3]),
                helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [2, 2]),
            ],
            [
                helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]),
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, "h", "w"]) for name in maps),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    helper.set_model_props(model, {"size": "little"})
    return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
