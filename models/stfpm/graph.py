"""STFPM as a graph of contract 1."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_runtime.manifest import FP32_NODES
from models.backbones.trunk import IMAGE, Trunk
from pictures.frames import Size
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS

LOCAL = "local"
EPSILON = 1e-6
"""Added to lengths and distances, so that neither a root nor a logarithm is taken of 0."""


def graph_of(
    trunk: Trunk,
    student: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Write the graph: teacher and student side by side, and how far their features point apart.

    Args:
        trunk: the teacher, not joined.
        student: output of each convolution of the trunk → weight, O×I×k×k, and bias, O, of the student.
        metadata: what the model says of itself.
    """
    graph = trunk.begun()
    graph.node("Shape", [IMAGE], "batch", start=0, end=1)
    own = {output for node in trunk.nodes for output in node.output}
    for node in trunk.nodes:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"student/{node.name}"
        copied.output[0] = f"student/{node.output[0]}"
        for place, name in enumerate(node.input):
            if name in own:
                copied.input[place] = f"student/{name}"
        if node.op_type == "Conv":
            weight, bias = student[node.output[0]]
            del copied.input[1:]
            copied.input.append(graph.weight(f"{copied.output[0]}/weight", weight))
            copied.input.append(graph.weight(f"{copied.output[0]}/bias", bias))
        graph.nodes.append(copied)
    grid = Size(*max((height, width) for _, height, width in trunk.features.values()))
    channels = graph.weight("distance/channels", np.array([1], dtype=np.int64))
    least = graph.weight("distance/least", np.array(EPSILON, dtype=np.float32))
    sides = graph.weight("distance/sides", np.array([1, *grid], dtype=np.int64))
    graph.node("Concat", ["batch", sides], "distance/size", axis=0)
    logarithms = []
    for place, (feature, (_, height, width)) in enumerate(trunk.features.items()):
        units: list[str] = []
        for name in (feature, f"student/{feature}"):
            at = f"distance/{place}/{len(units)}"
            graph.node("Mul", [name, name], f"{at}/squares")
            graph.node("ReduceSum", [f"{at}/squares", channels], f"{at}/sum", keepdims=1)
            graph.node("Add", [f"{at}/sum", least], f"{at}/positive")
            graph.node("Sqrt", [f"{at}/positive"], f"{at}/length")
            units.append(graph.node("Div", [name, f"{at}/length"], f"{at}/unit"))
        at = f"distance/{place}"
        graph.node("Sub", units, f"{at}/apart")
        graph.node("Mul", [f"{at}/apart"] * 2, f"{at}/squares")
        graph.node("ReduceSum", [f"{at}/squares", channels], f"{at}/distance", keepdims=1)
        value = f"{at}/distance"
        if (height, width) != grid:
            half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            value = graph.node("Resize", [value, "", "", "distance/size"], f"{at}/spread", **half)
        graph.node("Add", [value, least], f"{at}/positive")
        logarithms.append(graph.node("Log", [f"{at}/positive"], f"{at}/logarithm"))
    graph.node("Concat", logarithms, "distance/logarithms", axis=1)
    graph.node("ReduceMean", ["distance/logarithms"], "distance/mean", axes=[1], keepdims=1)
    graph.node("Exp", ["distance/mean"], "distance/local")
    graph.combine({LOCAL: "distance/local"})
    about = {MAP_NORMALISATION: PEAKS, FP32_NODES: "distance/", **metadata}
    return graph.model("stfpm", trunk.size, grid, (LOCAL,), about)
