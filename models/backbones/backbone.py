"""What a pretrained network sees in images, as a teacher learns it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

STRIDE = 8
"""Of the joined features. With images at twice their size it is a PDN's stride of 4."""
STRIDES = (8, 16)
"""Of the layers that are joined. Stride 16 already sees more of an image than a PDN on half its size."""


class Backbone(Protocol):
    """A network trained on ImageNet."""

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Give the features of several of its layers, joined.

        Args:
            images: N×H×W×3 uint8, RGB; H and W multiples of 16.

        Returns:
            N×C×H/8×W/8 float32, see ``joined``.
        """
        ...


def joined(layers: Sequence[Tensor], images: NDArray[np.uint8]) -> Tensor:
    """Join the features of layers as PatchCore does (Roth et al. 2022, §3.1).

    Each is averaged over 3×3 neighbours and resized to a grid of ``STRIDE``; the channels are joined.

    Args:
        layers: N×C×h×w each.
        images: N×H×W×3, which they were seen in.

    Returns:
        N×C×H/8×W/8, C of all layers together.
    """
    height, width = images.shape[1] // STRIDE, images.shape[2] // STRIDE
    means = [
        functional.avg_pool2d(layer, 3, stride=1, padding=1, count_include_pad=False) for layer in layers
    ]
    grids = [functional.interpolate(mean, (height, width), mode="bilinear") for mean in means]
    return torch.cat(grids, dim=1)
