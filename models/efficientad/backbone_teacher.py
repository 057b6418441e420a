"""A pretrained backbone as the teacher: nothing was distilled, and nothing lost by it."""

import torch
from torch import Tensor, nn

from models.backbones.features import Features
from models.backbones.trunk import Trunk
from models.efficientad.networks import MEAN, STD


class BackboneTeacher(nn.Module):
    """Joined features of a backbone. They are computed on the CPU, as an engine of the graph does.

    Args:
        trunk: of joined features.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self._trunk = trunk
        self._features: Features | None = None
        """Compiled when it is first needed; an export needs the graph alone."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Give the features, N×C×h×w float32.

        Args:
            images: N×3×H×W float32 after ``normalised``.

        Raises:
            InputError: OpenVINO does not take the backbone; its features are no finite numbers.
        """
        if self._features is None:
            self._features = Features(self._trunk, torch.get_num_threads())
        mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
        pixels = 255 * (images.cpu().float() * std + mean)
        # One image at a time: for a batch OpenVINO would compile again, and be no faster.
        found = [torch.from_numpy(self._features(image[None])) for image in pixels]
        return torch.cat(found).to(images.device)
