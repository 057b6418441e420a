"""How much each map counts in the score: as much as the network that draws it has understood.

A student or an autoencoder that explains little of what the teacher sees in good parts draws a map of what it
has not learned, not of defects: on a texture, where no autoencoder can foresee the picture, that map would
only be noise in the score. So these maps count by the share of the variance of the teacher's features that
their network explains on held-out good images. What is read out of the teacher itself counts whole.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from models.efficientad.model import GLOBAL, LOCAL, EfficientAd

LEAST = 0.01
"""Of a map whose network explains nothing; at 0 it could not be normalised."""


@torch.no_grad()
def map_weights(model: EfficientAd, images: Iterable[Tensor], there: Tensor) -> Tensor:
    """Give the weight of each map, K from ``LEAST`` to 1, in the order of ``EfficientAd.map_names``.

    Args:
        model: in evaluation mode.
        images: held-out good ones, 1×3×H×W float32 after ``normalised`` each.
        there: h×w bool, the cells that count.
    """
    missed = {LOCAL: 0.0, GLOBAL: 0.0}
    seen = 0.0
    for image in images:
        targets = model.targets(image)[..., there]
        seen += float(targets.square().sum())
        missed[LOCAL] += float((targets - model.student(image)[:, : model.channels, there]).square().sum())
        if model.autoencoder is not None:
            missed[GLOBAL] += float((targets - model.autoencoder(image)[..., there]).square().sum())
    shares = {name: 1 - value / max(seen, torch.finfo().tiny) for name, value in missed.items()}
    return torch.tensor([min(max(shares.get(name, 1.0), LEAST), 1.0) for name in model.map_names])
