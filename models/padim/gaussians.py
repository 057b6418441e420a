"""One Gaussian for each position (Defard et al. 2020), and one for the picture as a whole."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.padim.statistics import Statistics

OWN = 10
"""So many images weigh as much as what all positions have in common."""
RIDGE = 0.01
"""Share of the mean variance that is added to each variance."""

LEAST_SHARE = 0.001
"""Of the sphere in the covariance of whole pictures. For two, the formula gives 0, which has no inverse."""

_CHUNK = 64
"""Positions that are worked on at once, which bounds the memory."""


@dataclass(frozen=True)
class Gaussian:
    """A mean and the matrix that turns deviations from it into independent ones of variance 1.

    The squared Mahalanobis distance of x is then the squared length of (x - mean) @ whitening.
    """

    mean: NDArray[np.float32]
    """…×C."""
    whitening: NDArray[np.float32]
    """…×C×C, upper triangular."""


def at_positions(statistics: Statistics) -> Gaussian:
    """Fit a Gaussian to each position.

    With N images, its covariance counts N / (N + ``OWN``), and the mean covariance of all positions the rest.

    Args:
        statistics: of at least 2 images.

    Raises:
        torch.linalg.LinAlgError: the features do not vary at all.
    """
    covariance = statistics.scatter / max(statistics.count - 1, 1)
    within = covariance.mean(0)
    own = statistics.count / (statistics.count + OWN)
    covariance.mul_(own).add_(within, alpha=1 - own)
    return Gaussian(statistics.mean.numpy(), _whitening(covariance))


def _whitening(covariance: Tensor) -> NDArray[np.float32]:
    """Invert the Cholesky factors of P×C×C covariances, which are changed."""
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    variance += RIDGE * variance.mean()
    identity = torch.eye(covariance.shape[-1], dtype=torch.float64)
    for start in range(0, len(covariance), _CHUNK):
        chunk = covariance[start : start + _CHUNK]
        factor = torch.linalg.cholesky(chunk.double())
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        chunk.copy_(inverse.transpose(1, 2))
    return covariance.numpy()


def of_pictures(means: NDArray[np.float32]) -> Gaussian:
    """Fit a Gaussian to whole pictures, its covariance shrunk towards a sphere as Ledoit and Wolf (2004) do.

    Args:
        means: N×C, the mean features of at least 2 pictures.

    Raises:
        np.linalg.LinAlgError: they do not vary at all.
    """
    mean = means.mean(axis=0, dtype=np.float64)
    centred = means - mean
    count, channels = centred.shape
    covariance = centred.T @ centred / count
    variance = np.trace(covariance) / channels
    spread = float(np.square(covariance).sum()) - channels * variance**2
    # How far the covariances of single pictures are from that of all, over how far this is from a sphere.
    noise = (
        float(np.square(np.square(centred).sum(axis=1)).sum()) / count - np.square(covariance).sum()
    ) / count
    share = min(max(noise / spread, LEAST_SHARE), 1.0) if spread > 0 else 1.0
    shrunk = (1 - share) * covariance + share * variance * np.eye(channels)
    whitening = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return Gaussian(mean.astype(np.float32), whitening.astype(np.float32))
