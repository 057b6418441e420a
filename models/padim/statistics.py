"""Means and scatters of features, one for each position.

Images can be added and taken away without the others (Chan, Golub and LeVeque 1983).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of N images at P positions with C channels."""

    count: int
    mean: Tensor
    """P×C float32."""
    scatter: Tensor
    """P×C×C float32: the sum of the products of deviations from the mean."""

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Take them of images.

        Args:
            features: N×C×h×w float32.
        """
        rows = features.flatten(2).permute(2, 0, 1)
        mean = rows.mean(1)
        rows = rows - mean[:, None]
        return cls(len(features), mean, torch.bmm(rows.transpose(1, 2), rows))

    def plus(self, other: Self) -> Self:
        """Add other images."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        scatter = self.scatter + other.scatter
        scatter.baddbmm_(apart[:, :, None], apart[:, None, :], alpha=self.count * other.count / count)
        return type(self)(count, mean, scatter)

    def minus(self, part: Self) -> Self:
        """Take away images that are among these; at least one is left."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / count
        apart = part.mean - mean
        scatter = self.scatter - part.scatter
        scatter.baddbmm_(apart[:, :, None], apart[:, None, :], alpha=-count * part.count / self.count)
        return type(self)(count, mean, scatter)
