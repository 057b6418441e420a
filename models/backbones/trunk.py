"""The first layers of a backbone as an ONNX graph of one image size: what features are computed with.

The graph is written once and used twice: a model is fitted on its features, and holds it when it is exported.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_runtime.engine import FRAMES
from models.backbones.backbone import STRIDE
from models.contract_graph import OPSET, ContractGraph
from pictures.frames import Size

IMAGE = "image"
"""Input of a trunk: N×3×H×W float, BGR from 0 to 255, as the frames of contract 1 are."""
JOINED = "features"
"""Output of ``Trunk.joined``."""


@dataclass(frozen=True)
class Trunk:
    """Nodes from ``IMAGE`` to features."""

    name: str
    licence: str
    size: Size
    nodes: list[Any]
    weights: list[Any]
    features: dict[str, tuple[int, int, int]]
    """Tensor → channels, height and width."""
    fine: int = 0
    """Of joined features: how many channels, the first, come from layers of at most ``STRIDE``."""

    @property
    def channels(self) -> int:
        """Of all features together."""
        return sum(channels for channels, _, _ in self.features.values())

    @property
    def grid(self) -> Size:
        """Height and width of joined features: those of the finest layer that has at least ``STRIDE``."""
        sizes = [Size(height, width) for _, height, width in self.features.values()]
        return max(
            (size for size in sizes if size.height * STRIDE <= self.size.height + STRIDE), default=min(sizes)
        )

    def joined(self) -> "Trunk":
        """Join the features as PatchCore does (Roth et al. 2022, §3.1).

        Each is averaged over 3×3 neighbours and resized to one grid; then the channels are joined. The
        weights of the convolutions are rounded to bfloat16: what is fitted on these features holds for an
        engine in that precision, too, which would otherwise see all good parts a little elsewhere.
        """
        nodes, weights, grids, fine = list(self.nodes), [_rounded(weight) for weight in self.weights], [], 0
        for index, (feature, (channels, height, width)) in enumerate(self.features.items()):
            mean = f"trunk/mean_{index}"
            fine += channels if height >= self.grid.height else 0
            nodes.append(
                helper.make_node(
                    "AveragePool",
                    [feature],
                    [mean],
                    name=mean,
                    kernel_shape=[3, 3],
                    strides=[1, 1],
                    pads=[1, 1, 1, 1],
                    count_include_pad=0,
                )
            )
            if (height, width) == (2 * self.grid.height, 2 * self.grid.width):
                grid = f"trunk/grid_{index}"
                nodes.append(
                    helper.make_node(
                        "AveragePool", [mean], [grid], name=grid, kernel_shape=[2, 2], strides=[2, 2]
                    )
                )
                mean = grid
            elif (height, width) != self.grid:
                grid, sizes = f"trunk/grid_{index}", f"trunk/scales_{index}"
                scales = [1, 1, _scale(height, self.grid.height), _scale(width, self.grid.width)]
                weights.append(numpy_helper.from_array(np.array(scales, dtype=np.float32), sizes))
                nodes.append(
                    helper.make_node(
                        "Resize",
                        [mean, "", sizes],
                        [grid],
                        name=grid,
                        mode="linear",
                        coordinate_transformation_mode="half_pixel",
                    )
                )
                mean = grid
            grids.append(mean)
        nodes.append(helper.make_node("Concat", grids, [JOINED], name=JOINED, axis=1))
        features = {JOINED: (self.channels, *self.grid)}
        return Trunk(self.name, self.licence, self.size, nodes, weights, features, fine)

    def model(self) -> onnx.ModelProto:
        """Give the graph as a model of its own."""
        value = helper.make_tensor_value_info
        outputs = [value(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in self.features.items()]
        image = value(IMAGE, TensorProto.FLOAT, ["N", 3, *self.size])
        graph = helper.make_graph(self.nodes, "backbone", [image], outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def plain(self) -> dict[str, Any]:
        """Give everything in types that JSON knows; ``of_plain`` reads it."""
        return {
            "name": self.name,
            "licence": self.licence,
            "size": list(self.size),
            "features": self.features,
            "fine_channels": self.fine,
            "trunk": base64.b64encode(self.model().SerializeToString()).decode(),
        }

    @classmethod
    def of_plain(cls, content: Mapping[str, Any]) -> Self:
        """Read what ``plain`` gave.

        Raises:
            ValueError: it is damaged.
        """
        try:
            packed = base64.b64decode(content["trunk"], validate=True)
            graph = onnx.load_model_from_string(packed).graph
        except Exception as error:  # protobuf's own, which is no ValueError
            raise ValueError(f"the backbone is damaged: {error}") from error
        features = {name: tuple(shape) for name, shape in content["features"].items()}
        size, fine = Size(*content["size"]), int(content["fine_channels"])
        nodes, weights = list(graph.node), list(graph.initializer)
        return cls(content["name"], content["licence"], size, nodes, weights, features, fine)

    def begun(self) -> ContractGraph:
        """Begin a graph of contract 1: from the frames to the features."""
        graph = ContractGraph()
        graph.node("Cast", [FRAMES], "pixels", to=TensorProto.FLOAT)
        graph.node("Transpose", ["pixels"], IMAGE, perm=[0, 3, 1, 2])
        graph.nodes += self.nodes
        graph.weights += self.weights
        return graph

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides on the features."""
        return hashlib.sha256(self.model().SerializeToString(deterministic=True)).hexdigest()


def _scale(side: int, wanted: int) -> float:
    """Give the scale by which Resize makes so many cells of a side: it rounds their product down."""
    scale = np.float32(wanted / side)
    while int(float(scale) * side) < wanted:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def _rounded(weight: TensorProto) -> TensorProto:
    """Round the weights of a convolution to bfloat16, kept as float32; other constants stay."""
    if len(weight.dims) != 4:
        return weight
    values = torch.from_numpy(numpy_helper.to_array(weight).copy())
    return numpy_helper.from_array(values.bfloat16().float().numpy(), weight.name)


class Layers:
    """Layers of a convolutional network, in the order they are added.

    Args:
        size: of the images.
        mean: of R, G and B from 0 to 255, subtracted first.
        std: by which they are divided then.
    """

    def __init__(self, size: Size, mean: Sequence[float], std: Sequence[float]) -> None:
        self._size = size
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._shapes = {IMAGE: (3, *size)}
        centre = self._weight("trunk/mean", np.array(mean[::-1]).reshape(3, 1, 1))
        self._nodes.append(helper.make_node("Sub", [IMAGE, centre], ["trunk/centred"], name="trunk/centred"))
        self._std = np.array(std)

    def shape(self, value: str) -> tuple[int, int, int]:
        """Give channels, height and width of a tensor."""
        return self._shapes[value]

    def convolution(
        self, value: str, kernel: NDArray[np.float64], bias: NDArray[np.float64], stride: int
    ) -> str:
        """Add a convolution with TensorFlow's padding "same".

        Args:
            value: the input.
            kernel: outputs×inputs×k×k; of each channel for itself where inputs is 1.
            bias: outputs.
            stride: 1 or 2.
        """
        channels, height, width = self._shapes[value]
        outputs, inputs, side, _ = kernel.shape
        if value == IMAGE:
            # The network knows RGB.
            value, kernel = "trunk/centred", (kernel / self._std[:, None, None])[:, ::-1]
        name = f"trunk/conv_{len(self._nodes)}"
        rows, columns = -(-height // stride), -(-width // stride)
        around = [max((rows - 1) * stride + side - height, 0), max((columns - 1) * stride + side - width, 0)]
        before = [total // 2 for total in around]
        tensors = [self._weight(f"{name}/weight", kernel), self._weight(f"{name}/bias", bias)]
        self._nodes.append(
            helper.make_node(
                "Conv",
                [value, *tensors],
                [name],
                name=name,
                group=channels // inputs,
                kernel_shape=[side, side],
                strides=[stride, stride],
                pads=[*before, *(total - half for total, half in zip(around, before, strict=True))],
            )
        )
        self._shapes[name] = (outputs, rows, columns)
        return name

    def clip(self, value: str, least: float, most: float) -> str:
        """Clamp a tensor."""
        name = f"trunk/clip_{len(self._nodes)}"
        limits = [
            self._weight(f"{name}/least", np.array(least)),
            self._weight(f"{name}/most", np.array(most)),
        ]
        self._nodes.append(helper.make_node("Clip", [value, *limits], [name], name=name))
        self._shapes[name] = self._shapes[value]
        return name

    def add(self, first: str, second: str) -> str:
        """Add two tensors."""
        name = f"trunk/add_{len(self._nodes)}"
        self._nodes.append(helper.make_node("Add", [first, second], [name], name=name))
        self._shapes[name] = self._shapes[first]
        return name

    def trunk(self, features: Sequence[str], name: str, licence: str) -> Trunk:
        """Finish."""
        shapes = {feature: self._shapes[feature] for feature in features}
        return Trunk(name, licence, self._size, self._nodes, self._weights, shapes)

    def _weight(self, name: str, values: NDArray[Any]) -> str:
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name
