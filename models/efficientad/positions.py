"""What good images show at each position: how high a map is there, and what the teacher sees.

Both are taken after the training, from the images it learned from. They turn what is usual in one place, and
not in another, into the same number.
"""

import math
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.padim.fit import fine_components, principal_components
from models.padim.gaussians import at_positions
from models.padim.statistics import Statistics
from pictures.frames import Size


class Detail(NamedTuple):
    """How finely the density looks at a teacher's features."""

    pool: int
    """Cells of a map, in each direction, whose features are averaged."""
    components: int
    """Principal components, at most."""
    most_bytes: int
    """Of an engine's matrices, one for each position."""
    neighbours: int
    """Cells of a map, in each direction, whose squared distances are averaged."""
    fine_share: float
    """Of the components, for the fine layers of a backbone."""
    focus: int
    """Power of a map's shape, with which the picture as a whole adds to the score around its peak."""


OF_PDN = Detail(pool=2, components=32, most_bytes=13_000_000, neighbours=1, fine_share=0, focus=1)
"""More components were slower and found no more; more bytes take longer to read than the networks compute."""
OF_BACKBONE = Detail(pool=1, components=100, most_bytes=56_000_000, neighbours=3, fine_share=0.2, focus=2)
"""As PaDiM does: the joined features are averaged over neighbours already, and coarse. With more components
for the fine layers the maps were sharper, and images told apart worse."""
LEAST_DISTANCE = 1e-6

USUAL = 1.28
"""z-score up to which a value counts nearly nothing: nine in ten values of good images lie below."""
BELOW_USUAL = 0.01
"""What it counts there: a map that is the same everywhere could not be normalised."""
LEAST = 1e-6
"""Is added to a map before its logarithm is taken."""
SHARED = 0.5
"""Share of the variance of a map's logarithm that all positions have in common; few images tell it badly."""


class UsualMap(nn.Module):
    """Turns a map into z-scores of its logarithm, by what good images show at each position.

    What is usual becomes nearly 0, so that the noise of one map does not hide what another one finds.

    Args:
        cells: of the map.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, cells: Size) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(*cells))
        self.register_buffer("deviation", torch.ones(*cells))

    def fit(self, maps: Tensor) -> None:
        """Take mean and deviation from the maps of good images, N×h×w, at least 2."""
        logarithms = (maps + LEAST).log()
        variance = logarithms.var(0)
        variance = (1 - SHARED) * variance + SHARED * variance.mean()
        self.mean.copy_(logarithms.mean(0))
        self.deviation.copy_(variance.sqrt().clamp(min=1e-3))

    def forward(self, maps: Tensor) -> Tensor:
        """Give by how much the z-scores of maps, N×h×w, exceed what is usual."""
        z_scores = ((maps + LEAST).log() - self.mean) / self.deviation
        return functional.leaky_relu(z_scores - USUAL, BELOW_USUAL)


class Density(nn.Module):
    """The distance of the teacher's features from a Gaussian for each position (Defard et al. 2020).

    The features are projected on their principal components. What the coarse layers of a backbone see spreads
    around a defect: so its map has the shape of a mean of the distance in all layers and that in the fine
    ones, and as its largest value the largest distance in all of them.

    Args:
        channels: of the features.
        cells: of the teacher's map, to which the distances are interpolated.
        detail: how finely it looks.
        fine_channels: so many of the features, the first, are of the fine layers of a backbone.
    """

    basis: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, channels: int, cells: Size, detail: Detail = OF_PDN, fine_channels: int = 0) -> None:
        super().__init__()
        self.cells = cells
        self.detail = detail
        self.fine_channels = fine_channels
        self.grid = Size(cells.height // detail.pool, cells.width // detail.pool)
        positions = math.prod(self.grid)
        fitting = math.isqrt(detail.most_bytes // (4 * positions))
        components = max(1, min(detail.components, channels, fitting))
        self.fine = fine_components(fine_channels, channels, components, detail.fine_share)
        self.register_buffer("basis", torch.eye(components, channels))
        self.register_buffer("mean", torch.zeros(positions, components))
        self.register_buffer("whitening", torch.eye(components).repeat(positions, 1, 1))

    def choose_components(self, features: Tensor) -> None:
        """Find the principal components of features, see ``pooled``, N×C×h×w."""
        basis, _, _ = principal_components(
            features.cpu().numpy(), self.fine_channels, len(self.basis), self.detail.fine_share
        )
        self.basis.copy_(torch.from_numpy(basis))

    def fit(self, features: Iterable[Tensor]) -> None:
        """Fit the Gaussians.

        Args:
            features: see ``pooled``, of good images, at least 2 in all, N×C×h×w float32 each.

        Raises:
            torch.linalg.LinAlgError: they do not vary at all.
        """
        parts = (Statistics.of(self._projected(part).cpu()) for part in features)
        gaussian = at_positions(reduce(Statistics.plus, parts))
        self.mean.copy_(torch.from_numpy(gaussian.mean))
        self.whitening.copy_(torch.from_numpy(gaussian.whitening))

    def forward(self, features: Tensor) -> Tensor:
        """Give the distances, N×h×w.

        Args:
            features: of the teacher, normalised and ``pooled``, N×C×h×w.
        """
        apart = self._projected(features).flatten(2).permute(2, 0, 1) - self.mean[:, None]
        squares = torch.matmul(apart, self.whitening).square()
        planes, neighbours = self._planes(squares), self.detail.neighbours
        if neighbours > 1:
            planes = functional.avg_pool2d(planes, neighbours, 1, neighbours // 2, count_include_pad=False)
        distances = planes.sqrt()
        if self.fine:
            # The whitening is triangular: its first components alone give the distance in the fine layers.
            fine = self._planes(squares[:, :, : self.fine]).sqrt()
            shape = ((fine * distances).sqrt() * distances).sqrt()
            top = shape.amax((2, 3), keepdim=True).clamp(min=LEAST_DISTANCE)
            distances = shape / top * distances.amax((2, 3), keepdim=True)
        spread: Tensor = functional.interpolate(distances, tuple(self.cells), mode="bilinear")
        return spread[:, 0]

    def _planes(self, squares: Tensor) -> Tensor:
        """Average P×N×D squares over the components: N×1×h×w."""
        return squares.mean(2).T.reshape(-1, 1, *self.grid)

    def _projected(self, features: Tensor) -> Tensor:
        return functional.conv2d(features, self.basis[:, :, None, None])


def pooled(features: Tensor, detail: Detail = OF_PDN) -> Tensor:
    """Average N×C×h×w features over the cells that the density takes together."""
    return functional.avg_pool2d(features, detail.pool)
