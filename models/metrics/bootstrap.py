"""Confidence intervals by drawing the test images again, with replacement, within each type.

A drawn test set is a row of weights: how often each image is in it. Every metric takes such rows, the test
set itself being the row of ones, so that a metric and its interval come from the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Of a metric, with probability ``CONFIDENCE``."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric of the test set."""

    value: float
    interval: Interval | None
    """None when nothing was drawn."""


def stratified_weights(strata: Sequence[str], draws: int, seed: int) -> Floats:
    """Draw test sets with as many images of each stratum as there are.

    Args:
        strata: of the images: the type of the defect, or good.
        draws: number of test sets.
        seed: of the drawing.

    Returns:
        draws × images, how often each image is drawn.
    """
    random = np.random.default_rng(seed)
    weights = np.zeros((draws, len(strata)))
    names = np.array(strata)
    for stratum in sorted(set(strata)):
        chosen = np.flatnonzero(names == stratum)
        weights[:, chosen] = random.multinomial(len(chosen), np.full(len(chosen), 1 / len(chosen)), draws)
    return weights


def estimate(value: float, drawn: Floats) -> Estimate:
    """Give a metric with the percentile interval of its drawn values.

    Args:
        value: of the test set.
        drawn: one value per drawn test set; NaN where a draw has none.
    """
    known = drawn[~np.isnan(drawn)]
    if not known.size:
        return Estimate(value, None)
    low, high = np.quantile(known, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Estimate(value, Interval(float(low), float(high)))
