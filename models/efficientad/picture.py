"""How unlike the good ones a picture is as a whole, by the teacher's features (PUAD, arXiv 2402.15143).

Against the paper: the features' deviations over the picture count beside their means, and the distance adds
to the score where another map has its peak.
"""

import torch
from torch import Tensor, nn

from models.padim.gaussians import of_pictures

LEAST_TOP = 1e-6


class Picture(nn.Module):
    """The distance of a picture's features from a Gaussian of good pictures (Ledoit and Wolf 2004).

    Args:
        channels: of the features.
        focus: power of the shape in which it adds to the score.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, channels: int, focus: int = 1) -> None:
        super().__init__()
        self.focus = focus
        self.register_buffer("mean", torch.zeros(2 * channels))
        self.register_buffer("whitening", torch.eye(2 * channels))

    def fit(self, summaries: Tensor) -> None:
        """Fit the Gaussian to what ``summary`` gives of N good pictures, at least 2: N×2C float32.

        Raises:
            np.linalg.LinAlgError: they do not vary at all.
        """
        gaussian = of_pictures(summaries.cpu().numpy())
        self.mean.copy_(torch.from_numpy(gaussian.mean))
        self.whitening.copy_(torch.from_numpy(gaussian.whitening))

    def forward(self, features: Tensor, shape: Tensor) -> Tensor:
        """Give the distances in the shape of another map, at whose peak they stand as they are.

        Args:
            features: of the teacher, normalised and ``pooled``, N×C×h×w.
            shape: a map without negative values, N×H×W.
        """
        independent = (summary(features) - self.mean) @ self.whitening
        distances = independent.square().mean(1).sqrt()
        share = shape / shape.amax((1, 2), keepdim=True).clamp(min=LEAST_TOP)
        located: Tensor = share.pow(self.focus) * distances[:, None, None]
        return located


def summary(features: Tensor) -> Tensor:
    """Give mean and deviation of each channel over the picture, N×2C, of N×C×h×w."""
    return torch.cat([features.mean((2, 3)), features.var((2, 3), correction=0).sqrt()], dim=1)
