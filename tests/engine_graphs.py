"""Small graphs that keep contract 1, made without torch: an EfficientAD in little with random weights."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_runtime.engine import outputs_of, uncalibrated
from engine_runtime.manifest import VERSION_1_MAPS

LOCAL_MAP, GLOBAL_MAP = VERSION_1_MAPS.values()
OUTPUTS = outputs_of(VERSION_1_MAPS)
UNCALIBRATED = uncalibrated(VERSION_1_MAPS)


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


class _Mobile(_Graph):
    """Layers of a MobileNet: ReLU6, depthwise convolutions, TensorFlow's padding, residual sums."""

    def conv(
        self, x: str, channels: tuple[int, int], kernel: int, *, stride: int = 1, depthwise: bool = False
    ) -> str:
        given, made = channels
        group = given if depthwise else 1
        fan_in = given // group * kernel**2
        weight = self.random.normal(0, (2 / fan_in) ** 0.5, (made, given // group, kernel, kernel))
        before = (kernel - stride) // 2  # TensorFlow pads below and right first
        after = kernel - stride - before
        return self.add(
            "Conv",
            x,
            self.constant(weight),
            self.constant(self.random.normal(0, 0.1, made)),
            group=group,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
        )

    def relu6(self, x: str) -> str:
        return self.add("Clip", x, self.constant(0.0), self.constant(6.0))

    def distance(self, name: str, centred: str, whitening: NDArray[np.float64], axis: int) -> str:
        """Give Mahalanobis distances, in nodes whose names begin with ``name``."""
        first = len(self.nodes)
        x = self.add("MatMul", centred, self.constant(whitening))
        x = self.add("ReduceSum", self.add("Mul", x, x), self.constant([axis], np.int64), keepdims=0)
        x = self.add("Sqrt", x)
        for node in self.nodes[first:]:
            node.name = f"{name}/{node.op_type}"
        return x

    def block(self, x: str, channels: tuple[int, int], *, stride: int = 1) -> str:
        given, made = channels
        wide = 3 * given
        y = self.relu6(self.conv(x, (given, wide), 1))
        y = self.relu6(self.conv(y, (wide, wide), 3, stride=stride, depthwise=True))
        y = self.conv(y, (wide, made), 1)
        return self.add("Add", x, y) if (given, stride) == (made, 1) else y


def little_padim(
    height: int = 64,
    width: int = 64,
    *,
    channels: int = 8,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """Build a MobileNet with random weights, a Gaussian per position and one of the whole picture.

    It keeps version 2 of contract 1 with the maps local and whole; its distances ask to stay FP32.
    """
    graph = _Mobile(seed)
    x = graph.add("Cast", "frames", to=TensorProto.FLOAT)
    x = graph.add("Mul", graph.add("Sub", x, graph.constant(127.0)), graph.constant(1 / 128))
    x = graph.add(
        "Transpose", graph.add("Gather", x, graph.constant([2, 1, 0], np.int64), axis=3), perm=[0, 3, 1, 2]
    )
    x = graph.relu6(graph.conv(x, (3, channels), 3, stride=2))
    x = graph.block(x, (channels, channels))
    fine = graph.block(x, (channels, 2 * channels), stride=2)
    coarse = graph.block(
        graph.block(fine, (2 * channels, 3 * channels), stride=2), (3 * channels, 3 * channels)
    )
    scales = graph.constant([1, 1, 2, 2])
    coarse = graph.add("Resize", coarse, "", scales, mode="nearest")
    joined = graph.add("Concat", fine, coarse, axis=1)
    features = graph.add("AveragePool", joined, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)

    count, (rows, columns) = 5 * channels, (height // 4, width // 4)
    whitening = graph.random.normal(0, count**-0.5, (rows * columns, count, count))
    flat = graph.constant([0, count, rows * columns], np.int64)
    vectors = graph.add("Transpose", graph.add("Reshape", features, flat), perm=[2, 0, 1])
    centred = graph.add(
        "Sub", vectors, graph.constant(graph.random.normal(0, 0.5, (rows * columns, 1, count)))
    )
    local = graph.distance("distance", centred, whitening, 2)
    local = graph.add(
        "Reshape", graph.add("Transpose", local, perm=[1, 0]), graph.constant([-1, rows, columns], np.int64)
    )
    graph.add("Identity", local, output="map_local")
    mean = graph.add("ReduceMean", features, graph.constant([2, 3], np.int64), keepdims=0)
    whole = graph.distance("whole", mean, graph.random.normal(0, count**-0.5, (count, count)), 1)
    whole = graph.add("Reshape", whole, graph.constant([-1, 1, 1], np.int64))
    graph.add("Expand", whole, graph.constant([1, rows, columns], np.int64), output="map_whole")
    total = graph.add("Add", graph.normalised("map_local", 0), graph.normalised("map_whole", 1))
    graph.add("Mul", total, graph.constant(0.5), output="anomaly_map")
    graph.add("ReduceMax", "anomaly_map", graph.constant([1, 2], np.int64), output="score", keepdims=0)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "little padim",
            [
                value("frames", TensorProto.UINT8, ["N", height, width, 3]),
                value("quantiles", TensorProto.FLOAT, [2, 2]),
            ],
            [
                value("score", TensorProto.FLOAT, ["N"]),
                *(
                    value(name, TensorProto.FLOAT, ["N", rows, columns])
                    for name in ("anomaly_map", "map_local", "map_whole")
                ),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    said = {
        "contract": "2",
        "maps": "local,whole",
        "map_normalisation": "peaks",
        "fp32_nodes": "distance,whole",
    }
    helper.set_model_props(model, said | (metadata or {}))
    return model
