from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backbones.efficientnet_lite import efficientnet_lite, stages
from models.backbones.features import Features
from pictures.frames import Size


class LiteBackbone:
    """An EfficientNet-Lite that takes images of any size, see ``Backbone``.

    Args:
        name: of ``efficientnet_lite.NAMES``.
        layers: "stage2" to "stage6"; when None those that are joined by default.
        threads: to compute with.

    Raises:
        InputError: there is no such layer, or the package with the weights is missing.
    """

    def __init__(self, name: str, layers: Sequence[str] | None, threads: int) -> None:
        self._name, self._stages, self._threads = name, stages(name, layers), threads
        self._of_size: dict[Size, Features] = {}

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """See ``Backbone``."""
        size = Size(*images.shape[1:3])
        if size not in self._of_size:
            trunk = efficientnet_lite(self._name, size, self._stages).joined()
            self._of_size[size] = Features(trunk, self._threads)
        planes = torch.from_numpy(images).permute(0, 3, 1, 2)
        return torch.from_numpy(self._of_size[size](planes))
