"""PatchCore as a graph of contract 1."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_runtime.manifest import FP32_NODES
from models.backbones.trunk import JOINED, Trunk
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS

LOCAL = "local"


def graph_of(
    trunk: Trunk, scale: NDArray[np.float32], coreset: NDArray[np.float32], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Write the graph: of each position the distance to the nearest member of the coreset.

    |x - m|² = |x|² - 2 x·m + |m|², so that all distances come from one product of matrices.

    Args:
        trunk: gives the joined features.
        scale: C, by which features are multiplied.
        coreset: M×C, scaled.
        metadata: what the model says of itself.
    """
    graph = trunk.begun()
    channels, (height, width) = len(scale), trunk.grid
    flat = graph.weight("distance/flat", np.array([0, channels, height * width], dtype=np.int64))
    graph.node("Reshape", [JOINED, flat], "distance/columns")
    graph.node("Mul", ["distance/columns", graph.weight("distance/scale", scale[:, None])], "distance/scaled")
    # The centre of the coreset as origin keeps the three terms small, and so their rounding.
    centre = coreset.mean(axis=0)
    members = coreset - centre
    graph.node(
        "Sub", ["distance/scaled", graph.weight("distance/centre", centre[:, None])], "distance/features"
    )
    graph.node("Transpose", ["distance/features"], "distance/rows", perm=[0, 2, 1])
    graph.node(
        "MatMul",
        ["distance/rows", graph.weight("distance/coreset", np.ascontiguousarray(-2 * members.T))],
        "distance/products",
    )
    lengths = graph.weight("distance/lengths", np.square(members).sum(axis=1))
    graph.node("Add", ["distance/products", lengths], "distance/relative")
    graph.node("ReduceMin", ["distance/relative"], "distance/nearest", axes=[2], keepdims=0)
    graph.node("Mul", ["distance/features"] * 2, "distance/squares")
    axes = graph.weight("distance/axes", np.array([1], dtype=np.int64))
    graph.node("ReduceSum", ["distance/squares", axes], "distance/own_lengths", keepdims=0)
    graph.node("Add", ["distance/nearest", "distance/own_lengths"], "distance/square")
    graph.node("Relu", ["distance/square"], "distance/not_negative")
    graph.node("Sqrt", ["distance/not_negative"], "distance/by_position")
    plane = graph.weight("distance/plane", np.array([-1, 1, height, width], dtype=np.int64))
    graph.node("Reshape", ["distance/by_position", plane], "distance/map")
    graph.node(
        "AveragePool",
        ["distance/map"],
        "distance/local",
        kernel_shape=[3, 3],
        strides=[1, 1],
        pads=[1, 1, 1, 1],
        count_include_pad=0,
    )
    graph.combine({LOCAL: "distance/local"})
    about = {MAP_NORMALISATION: PEAKS, FP32_NODES: "distance/", **metadata}
    return graph.model("patchcore", trunk.size, trunk.grid, (LOCAL,), about)
