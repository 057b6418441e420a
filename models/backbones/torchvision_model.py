"""A backbone from torchvision's classifiers, such as the paper's Wide ResNet-101."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine_runtime.open import one_line
from foundation.errors import InputError
from models.backbones.backbone import joined
from models.efficientad.networks import normalised

LAYERS = ("layer2", "layer3")
"""Of a ResNet, as in the paper."""


class TorchvisionBackbone:
    """Layers of a classifier with its best published weights, on the GPU where there is one.

    Args:
        name: in torchvision, such as "wide_resnet101_2".
        layers: names of the modules to join; when None ``LAYERS``.

    Raises:
        InputError: torchvision is not installed or not for this torch, there is no such model or layer, or
            its weights cannot be fetched.
    """

    def __init__(self, name: str, layers: Sequence[str] | None) -> None:
        what = f"torchvision:{name}"
        try:
            from torchvision.models import get_model
            from torchvision.models.feature_extraction import create_feature_extractor
        except (ImportError, RuntimeError) as error:  # the latter where it was made for another torch
            raise InputError(
                f"{what}: torchvision does not load beside torch {torch.__version__}: {one_line(error)}"
            ) from error
        try:
            model = get_model(name, weights="DEFAULT")
        except ValueError as error:
            raise InputError(f"{what}: {one_line(error)}") from error
        except OSError as error:
            raise InputError(f"{what}: its weights cannot be fetched: {one_line(error)}") from error
        names = list(layers or LAYERS)
        try:
            extractor = create_feature_extractor(model.eval(), names)
        except ValueError as error:
            raise InputError(
                f"{what}: has no layers {' and '.join(names)}; name others with --layers"
            ) from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._extractor = extractor.to(self._device)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """See ``Backbone``."""
        planes = normalised(torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2))
        return joined(list(self._extractor(planes).values()), images).float().cpu()
