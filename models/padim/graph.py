"""PaDiM as a graph of contract 1."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from engine_runtime.engine import FRAMES
from engine_runtime.manifest import FP32_NODES
from models.backbones.trunk import IMAGE, JOINED, Trunk
from models.contract_graph import ContractGraph
from models.padim.gaussians import Gaussian
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS

LOCAL, WHOLE = "local", "whole"


class Spread(NamedTuple):
    """Of a value over good pictures."""

    mean: float
    deviation: float


class Usual(NamedTuple):
    """What makes z-scores of the two values that the map ``whole`` is the mean of."""

    peak: Spread
    """The largest value of the map ``local``."""
    picture: Spread
    """The distance of the picture's mean feature."""


def graph_of(
    trunk: Trunk,
    basis: NDArray[np.float32],
    origin: NDArray[np.float32],
    *,
    positions: Gaussian,
    pictures: Gaussian,
    usual: "Usual",
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Write the graph.

    Args:
        trunk: gives the joined features.
        basis: D×C, on which the C features are projected.
        origin: C, subtracted before.
        positions: of each position, P×C.
        pictures: of the pictures' mean features.
        usual: what good pictures have.
        metadata: what the model says of itself.
    """
    graph = ContractGraph()
    graph.node("Cast", [FRAMES], "pixels", to=TensorProto.FLOAT)
    graph.node("Transpose", ["pixels"], IMAGE, perm=[0, 3, 1, 2])
    graph.nodes += trunk.nodes
    graph.weights += trunk.weights
    channels, (height, width) = len(basis), trunk.grid
    graph.node(
        "Conv",
        [
            JOINED,
            graph.weight("distance/basis", basis[:, :, None, None]),
            graph.weight("distance/origin", -basis @ origin),
        ],
        "distance/projected",
        kernel_shape=[1, 1],
    )
    shape = graph.weight("distance/flat", np.array([0, channels, height * width], dtype=np.int64))
    graph.node("Reshape", ["distance/projected", shape], "distance/columns")
    graph.node("Transpose", ["distance/columns"], "distance/rows", perm=[2, 0, 1])
    graph.node(
        "Sub", ["distance/rows", graph.weight("distance/mean", positions.mean[:, None])], "distance/apart"
    )
    graph.node(
        "MatMul",
        ["distance/apart", graph.weight("distance/whitening", positions.whitening)],
        "distance/independent",
    )
    graph.node("Mul", ["distance/independent"] * 2, "distance/squares")
    graph.node("ReduceMean", ["distance/squares"], "distance/mean_squares", axes=[2], keepdims=0)
    graph.node("Transpose", ["distance/mean_squares"], "distance/by_image", perm=[1, 0])
    plane = graph.weight("distance/plane", np.array([-1, 1, height, width], dtype=np.int64))
    graph.node("Reshape", ["distance/by_image", plane], "distance/map")
    graph.node(
        "AveragePool",
        ["distance/map"],
        "distance/averaged",
        kernel_shape=[3, 3],
        strides=[1, 1],
        pads=[1, 1, 1, 1],
        count_include_pad=0,
    )
    local = graph.node("Sqrt", ["distance/averaged"], "distance/local")
    graph.node("ReduceMean", ["distance/columns"], "distance/picture", axes=[2], keepdims=0)
    graph.node("Sub", ["distance/picture", graph.weight("distance/usual", pictures.mean)], "distance/unusual")
    graph.node(
        "MatMul",
        ["distance/unusual", graph.weight("distance/picture_whitening", pictures.whitening)],
        "distance/picture_independent",
    )
    graph.node("Mul", ["distance/picture_independent"] * 2, "distance/picture_squares")
    graph.node("ReduceMean", ["distance/picture_squares"], "distance/picture_square", axes=[1], keepdims=1)
    graph.node("Sqrt", ["distance/picture_square"], "distance/picture_distance")
    cell = graph.weight("distance/cell", np.array([-1, 1, 1, 1], dtype=np.int64))
    graph.node("Reshape", ["distance/picture_distance", cell], "distance/of_picture")
    graph.node("ReduceMax", [local], "distance/peak", axes=[2, 3], keepdims=1)
    _half_z_score(graph, "distance/of_picture", usual.picture)
    _half_z_score(graph, "distance/peak", usual.peak)
    graph.node("Add", ["distance/of_picture/half", "distance/peak/half"], "distance/both")
    ones = graph.weight("distance/ones", np.ones((1, 1, height, width), dtype=np.float32))
    whole = graph.node("Mul", ["distance/both", ones], "distance/whole")
    planes = {LOCAL: local, WHOLE: whole}
    graph.combine(planes)
    about = {MAP_NORMALISATION: PEAKS, FP32_NODES: "distance/", **metadata}
    return graph.model("padim", trunk.size, trunk.grid, tuple(planes), about)


def _half_z_score(graph: ContractGraph, value: str, spread: Spread) -> None:
    mean = graph.weight(f"{value}/mean", np.array(spread.mean, dtype=np.float32))
    half = graph.weight(f"{value}/scale", np.array(0.5 / spread.deviation, dtype=np.float32))
    graph.node("Sub", [value, mean], f"{value}/above")
    graph.node("Mul", [f"{value}/above", half], f"{value}/half")
