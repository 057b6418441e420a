"""PaDiM as a graph of contract 1."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from engine_runtime.manifest import FP32_NODES
from models.backbones.trunk import JOINED, Trunk
from models.contract_graph import ContractGraph
from models.padim.gaussians import Gaussian
from pictures.frames import Size
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS

LOCAL, WHOLE = "local", "whole"

PICTURE = 1 / 3
"""Weight of the picture's mean feature in the map ``whole``; the rest is that of its worst place."""


class Deviations(NamedTuple):
    """Over good pictures, of the two values of which the map ``whole`` is made, each divided by its own."""

    peak: float
    """Of the largest value of the map ``local``."""
    picture: float
    """Of the distance of the picture's mean feature."""


def graph_of(
    trunk: Trunk,
    basis: NDArray[np.float32],
    origin: NDArray[np.float32],
    *,
    fine: int,
    context: NDArray[np.int64],
    positions: Gaussian,
    pictures: Gaussian,
    deviations: Deviations,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Write the graph.

    Both maps have the shape of the distances in the fine layers, because what the coarse layers see spreads
    around a defect. The largest value of ``local`` is the largest distance in all layers, averaged over 3×3
    positions. That of ``whole`` stands where that of ``local`` does and adds to it; elsewhere it does not
    make a picture with a defect look defective all over.

    Args:
        trunk: gives the joined features.
        basis: D×C, on which the C features are projected.
        origin: C, subtracted before.
        fine: so many of the D, the first, are of the fine layers alone.
        context: K of the D, whose means over row and column go after the fine ones.
        positions: of each position, P×(2K+D).
        pictures: of the pictures' mean features, all C of them.
        deviations: on good pictures.
        metadata: what the model says of itself.
    """
    graph = trunk.begun()
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
    means = 2 * len(context)
    seen = _with_context(graph, context, fine, trunk.grid) if means else "distance/projected"
    # In this order: runtimes keep the channels last, and transpose large planes slowly.
    graph.node("Transpose", [seen], "distance/cells", perm=[2, 3, 0, 1])
    shape = graph.weight("distance/flat", np.array([height * width, -1, means + channels], dtype=np.int64))
    graph.node("Reshape", ["distance/cells", shape], "distance/rows")
    graph.node(
        "Sub", ["distance/rows", graph.weight("distance/mean", positions.mean[:, None])], "distance/apart"
    )
    graph.triangular_product("distance/apart", positions.whitening, "distance/independent")
    graph.node("Mul", ["distance/independent"] * 2, "distance/squares")
    # A Cholesky factor is triangular: its first components alone give the distance of the fine layers alone.
    ends = [
        graph.weight(f"distance/{name}", np.array([value], dtype=np.int64))
        for name, value in (
            ("first", 0),
            ("fine_components", fine or means + channels),
            ("component_axis", 2),
        )
    ]
    graph.node("Slice", ["distance/squares", *ends], "distance/fine_squares")
    plane = graph.weight("distance/plane", np.array([-1, 1, height, width], dtype=np.int64))
    for name in ("fine", "all"):
        squares = "distance/squares" if name == "all" else "distance/fine_squares"
        graph.node("ReduceMean", [squares], f"distance/{name}_mean", axes=[2], keepdims=0)
        graph.node("Transpose", [f"distance/{name}_mean"], f"distance/{name}_by_image", perm=[1, 0])
        graph.node("Reshape", [f"distance/{name}_by_image", plane], f"distance/{name}_map")
    graph.node(
        "AveragePool",
        ["distance/all_map"],
        "distance/averaged",
        kernel_shape=[3, 3],
        strides=[1, 1],
        pads=[1, 1, 1, 1],
        count_include_pad=0,
    )
    graph.node("ReduceMax", ["distance/averaged"], "distance/largest", axes=[2, 3], keepdims=1)
    graph.node("Sqrt", ["distance/largest"], "distance/peak")
    graph.node("Sqrt", ["distance/fine_map"], "distance/shape")
    graph.node("ReduceMax", ["distance/shape"], "distance/top", axes=[2, 3], keepdims=1)
    least = graph.weight("distance/least", np.array(1e-6, dtype=np.float32))
    graph.node("Max", ["distance/top", least], "distance/positive_top")
    graph.node("Div", ["distance/shape", "distance/positive_top"], "distance/share")
    local = graph.node("Mul", ["distance/share", "distance/peak"], "distance/local")
    graph.node("ReduceMean", [JOINED], "distance/picture", axes=[2, 3], keepdims=0)
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
    graph.node(
        "Mul",
        ["distance/of_picture", _scale(graph, "picture", PICTURE / deviations.picture)],
        "distance/of_all",
    )
    graph.node(
        "Mul", ["distance/peak", _scale(graph, "peak", (1 - PICTURE) / deviations.peak)], "distance/of_worst"
    )
    graph.node("Add", ["distance/of_all", "distance/of_worst"], "distance/both")
    whole = graph.node("Mul", ["distance/share", "distance/both"], "distance/whole")
    planes = {LOCAL: local, WHOLE: whole}
    graph.combine(planes)
    about = {MAP_NORMALISATION: PEAKS, FP32_NODES: "distance/", **metadata}
    return graph.model("padim", trunk.size, trunk.grid, tuple(planes), about)


def _with_context(graph: ContractGraph, context: NDArray[np.int64], fine: int, grid: Size) -> str:
    """Add the means over row and column of some components after those of the fine layers."""
    chosen = graph.weight("distance/context", context)
    graph.node("Gather", ["distance/projected", chosen], "distance/chosen", axis=1)
    for name, axis, spread in (("row", 3, [1, 1, 1, grid.width]), ("column", 2, [1, 1, grid.height, 1])):
        graph.node("ReduceMean", ["distance/chosen"], f"distance/{name}_mean", axes=[axis], keepdims=1)
        shape = graph.weight(f"distance/{name}_shape", np.array(spread, dtype=np.int64))
        graph.node("Expand", [f"distance/{name}_mean", shape], f"distance/{name}_context")
    for name, start, end in (("fine_projected", 0, fine), ("coarse_projected", fine, 2**31 - 1)):
        bounds = [
            graph.weight(f"distance/{name}_{bound}", np.array([value], dtype=np.int64))
            for bound, value in (("start", start), ("end", end), ("axis", 1))
        ]
        graph.node("Slice", ["distance/projected", *bounds], f"distance/{name}")
    parts = [f"distance/{name}" for name in ("fine_projected", "row_context", "column_context")]
    parts.append("distance/coarse_projected")
    return graph.node("Concat", parts, "distance/seen", axis=1)


def _scale(graph: ContractGraph, name: str, scale: float) -> str:
    return graph.weight(f"distance/scale_of_{name}", np.array(scale, dtype=np.float32))
