"""Metrics of the scores of whole images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Ranking:
    """Images ordered by their score, those of equal score together.

    Args:
        scores: N, finite.
        defective: N, which images show a defective part.
    """

    def __init__(self, scores: Floats, defective: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._defective = defective[self._order]
        self._last_of_equals = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._distinct = ordered[self._last_of_equals]

    def auroc(self, weights: Floats) -> Floats:
        """Give the area under the ROC curve: a defective part scores higher, ties counting half.

        Args:
            weights: draws × N, how often each image counts.

        Returns:
            One value per draw; NaN where it has no good or no defective image.
        """
        true, false = self._counts(weights)
        heights = (true + np.pad(true, ((0, 0), (1, 0)))[:, :-1]) / 2
        area = (heights * np.diff(false, axis=1, prepend=0)).sum(axis=1)
        pairs = true[:, -1] * false[:, -1]
        areas: Floats = np.divide(area, pairs, out=np.full(len(area), np.nan), where=pairs > 0)
        return areas

    def best_f1(self, weights: Floats) -> "BestF1":
        """Find the threshold with the highest F1 score.

        Args:
            weights: draws × N, how often each image counts.
        """
        true, false = self._counts(weights)
        positive = true + false + true[:, -1:]
        f1 = np.divide(2 * true, positive, out=np.zeros_like(true), where=positive > 0)
        best = f1.argmax(axis=1)
        # A part is rejected when it scores higher than the threshold: half-way to the next lower score.
        lower = np.append(self._distinct[1:], np.nextafter(self._distinct[-1], -np.inf))
        middle = lower + (self._distinct - lower) / 2
        thresholds = np.where(
            middle < self._distinct, middle, lower
        )  # between neighbours nothing is half-way
        return BestF1(f1[np.arange(len(f1)), best], thresholds[best])

    def _counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Count defective and good images among those of the highest scores, for each distinct score."""
        ordered = weights[:, self._order]
        true = np.cumsum(ordered * self._defective, axis=1)[:, self._last_of_equals]
        false = np.cumsum(ordered * ~self._defective, axis=1)[:, self._last_of_equals]
        return true, false


class BestF1(NamedTuple):
    """One value per draw each."""

    f1: Floats
    threshold: Floats
