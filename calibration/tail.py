"""The threshold: an extreme-value fit of the upper tail of good scores.

A wanted false reject rate of 1 in 1000 lies beyond what a few hundred good parts show, so the tail is
extrapolated by peaks over threshold: exceedances over a high score follow a generalised Pareto distribution
(Pickands 1975; Coles, "An Introduction to Statistical Modeling of Extreme Values", chapter 4). Few images
hardly determine its shape ξ, and a maximum-likelihood fit then gives thresholds between much too low and
absurd. Here ξ has the prior N(0, 0.15²): from light tails to moderately heavy ones, around the exponential.
The posterior of scale and shape is summed on a grid: no iteration that can fail, nothing random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.9
"""Probability that the stated interval holds the true false reject rate."""
FEWEST_SCORES = 20
TOLERATED_FACTOR = 3.0
"""Enough images: the interval's upper end is at most this many times the wanted rate."""

_SHAPE_DEVIATION = 0.15
_SHAPES = (-0.6, 0.6, 60)
_LOG_SCALES = (-1.6, 1.4, 60)
_RATE_POINTS = 32
_MOST_SCORES = 1_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """A threshold and how far it can be trusted."""

    value: float
    wanted_rate: float
    rate_interval: tuple[float, float]
    """Holds the false reject rate with probability ``CONFIDENCE``."""
    tail_size: int
    """How many scores the tail was fitted on."""
    tolerance: float
    """By so much all scores could rise before more are to be expected above the threshold than the interval's
    upper end."""

    @property
    def enough_scores(self) -> bool:
        """Say whether the interval is as narrow as that already."""
        return self.rate_interval[1] <= TOLERATED_FACTOR * self.wanted_rate


def fit_threshold(scores: Floats, rate: float) -> Threshold:
    """Find the score that a good part exceeds with the wanted probability.

    The threshold is the posterior predictive quantile: what is to be *expected* at it is the wanted rate, the
    uncertainty of the fit included, so few images give a higher threshold than many.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, in (0, 0.1].

    Raises:
        ValueError: fewer than 20 scores, or the upper ones are all equal.
    """
    if len(scores) < FEWEST_SCORES:
        raise ValueError(f"{len(scores)} good scores; at least {FEWEST_SCORES} are needed")
    start, excesses = _tail_of(scores, rate)
    if not excesses.any():
        raise ValueError(f"the {len(excesses)} highest good scores are all {start:g}")
    tail = _Tail(excesses, len(scores), len(excesses))
    excess = tail.quantile(rate)
    interval = tail.rate_interval(excess)
    return Threshold(
        value=start + excess,
        wanted_rate=rate,
        rate_interval=interval,
        tail_size=len(excesses),
        tolerance=excess - tail.quantile(max(interval[1], rate)),
    )


def expected_rates(scores: Floats, thresholds: Sequence[float]) -> list[float]:
    """Tell what share of good parts is to be expected above each of some thresholds.

    Below the start of the tail it is what the scores themselves show, above it what the fit says.

    Args:
        scores: of n ≥ 20 good parts, float64.
        thresholds: in the unit of the scores.

    Raises:
        ValueError: fewer than 20 scores, or the upper ones are all equal.
    """
    if len(scores) < FEWEST_SCORES:
        raise ValueError(f"{len(scores)} good scores; at least {FEWEST_SCORES} are needed")
    start, excesses = _tail_of(scores, 0.0)
    if not excesses.any():
        raise ValueError(f"the {len(excesses)} highest good scores are all {start:g}")
    tail = _Tail(excesses, len(scores), len(excesses))
    ordered = np.sort(scores)
    return [
        tail.expected_rate(threshold - start)
        if threshold >= start
        else 1 - float(np.searchsorted(ordered, threshold, side="right")) / len(ordered)
        for threshold in thresholds
    ]


def with_more(scores: Floats, rate: float, more: int) -> Threshold:
    """Imagine more good parts, spread as those that were seen, and find the threshold that they would give.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, in (0, 0.1].
        more: how many.

    Raises:
        ValueError: as ``fit_threshold``.
    """
    start, excesses = _tail_of(scores, rate)
    if not excesses.any():
        raise ValueError(f"the {len(excesses)} highest good scores are all {start:g}")
    count = len(scores) + more
    size = round(len(excesses) * count / len(scores))
    tail = _Tail(excesses, count, size)
    excess = tail.quantile(rate)
    interval = tail.rate_interval(excess)
    return Threshold(start + excess, rate, interval, size, excess - tail.quantile(max(interval[1], rate)))


def tail_curve(
    scores: Floats, rate: float, thresholds: Sequence[float]
) -> list[tuple[float, float, float, float]]:
    """Tell what the fit says of the tail: threshold, expected rate above it, and the interval's two ends.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, which says how much of the scores the tail is.
        thresholds: those below the tail's start are left out.

    Raises:
        ValueError: as ``fit_threshold``.
    """
    start, excesses = _tail_of(scores, rate)
    if not excesses.any():
        raise ValueError(f"the {len(excesses)} highest good scores are all {start:g}")
    tail = _Tail(excesses, len(scores), len(excesses))
    return [
        (threshold, tail.expected_rate(threshold - start), *tail.rate_interval(threshold - start))
        for threshold in thresholds
        if threshold >= start
    ]


def tail_size(count: int, rate: float) -> int:
    """Give how many of ``count`` scores are the tail: 1.3 n^⅔, and at least twice the share looked for."""
    by_count: int = round(1.3 * count ** (2 / 3))
    return min(count // 2, max(10, by_count, math.ceil(2 * rate * count)))


def scores_needed(rate: float) -> int:
    """Give how many good scores narrow the interval to ``TOLERATED_FACTOR`` times the wanted rate.

    It is what scores with an exponential tail need, whatever few scores seem to say of their own tail: the
    number does not change with every image that comes.
    """
    size = 50
    excesses = -np.log((np.arange(size) + 0.5) / size)

    def enough(count: int) -> bool:
        tail = _Tail(excesses, count, tail_size(count, rate))
        return tail.rate_interval(tail.quantile(rate))[1] <= TOLERATED_FACTOR * rate

    low, high = FEWEST_SCORES - 1, FEWEST_SCORES
    while not enough(high) and high < _MOST_SCORES:
        low, high = high, 2 * high
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _tail_of(scores: Floats, rate: float) -> tuple[float, Floats]:
    size = tail_size(len(scores), rate)
    ordered = np.sort(scores)
    start = float(ordered[-size - 1])
    return start, ordered[-size:] - start


class _Tail:
    """Posterior of a generalised Pareto tail: shapes ξ, scales σ and their weights, three flat arrays.

    Args:
        excesses: of the scores above the tail's start, over it.
        count: number of all scores.
        size: number of scores above the tail's start; other than ``len(excesses)`` to imagine more scores,
            spread as those that were seen.
    """

    def __init__(self, excesses: Floats, count: int, size: int) -> None:
        self.count, self.size = count, size
        shapes = np.linspace(*_SHAPES)
        log_scales = math.log(excesses.mean()) + np.linspace(*_LOG_SCALES)
        weights = self._weights(excesses, shapes, log_scales)
        # Many scores concentrate the posterior between two grid points: lay the grid again where they matter.
        shapes = _where_it_matters(shapes, weights.max(axis=1))
        log_scales = _where_it_matters(log_scales, weights.max(axis=0))
        self.weights = self._weights(excesses, shapes, log_scales).ravel()
        self.shapes = np.repeat(shapes, len(log_scales))
        self.scales = np.tile(np.exp(log_scales), len(shapes))

    def _weights(self, excesses: Floats, shapes: Floats, log_scales: Floats) -> Floats:
        ratios = excesses / np.exp(log_scales)[:, None]
        log_likelihood = np.empty((len(shapes), len(log_scales)))
        for row, shape in enumerate(shapes):
            growth = 1 + shape * ratios
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.where(growth > 0, np.log(growth), -np.inf)
            density = -(1 + 1 / shape) * logs
            log_likelihood[row] = (
                np.where((growth > 0).all(axis=1), density.mean(axis=1), -np.inf) - log_scales
            )
        log_posterior = self.size * log_likelihood - 0.5 * (shapes[:, None] / _SHAPE_DEVIATION) ** 2
        weights: Floats = np.exp(log_posterior - log_posterior.max())
        weights /= weights.sum()
        return weights

    def survival(self, excess: float) -> Floats:
        """P(score > start + excess | score > start), for every ξ and σ."""
        growth = np.maximum(1 + self.shapes * excess / self.scales, 0)
        # A negative ξ ends the tail at start - σ/ξ: growth is 0 from there on, and so is its positive power.
        alive = growth > 0
        powers: Floats = np.power(np.where(alive, growth, 1.0), -1 / self.shapes)
        powers[~alive] = 0.0
        return powers

    def expected_rate(self, excess: float) -> float:
        """Give the expected share of all scores that lie more than ``excess`` over the tail's start."""
        share: float = (self.size + 1) / (self.count + 1)
        return share * float(self.weights @ self.survival(excess))

    def quantile(self, rate: float) -> float:
        """Give the excess over the tail's start whose expected rate is ``rate``."""
        low, high = 0.0, float(self.scales.max())
        while self.expected_rate(high) > rate:
            low, high = high, 2 * high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.expected_rate(middle) > rate else (low, middle)
        return high

    def rate_interval(self, excess: float) -> tuple[float, float]:
        """Give the central interval that holds the rate of scores beyond ``excess`` with ``CONFIDENCE``."""
        from scipy.stats import beta  # here, as it takes 60 MB, and what only asks for rates does without

        # The share of a distribution above the (k+1)-th largest of n draws is Beta(k + 1, n - k) distributed.
        points = (np.arange(_RATE_POINTS) + 0.5) / _RATE_POINTS
        shares = beta.ppf(points, self.size + 1, self.count - self.size)
        rates = np.outer(self.survival(excess), shares).ravel()
        order = np.argsort(rates)
        cumulated = np.cumsum(np.repeat(self.weights / _RATE_POINTS, _RATE_POINTS)[order])
        ends = np.searchsorted(cumulated, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = rates[order][np.minimum(ends, rates.size - 1)]
        return float(low), float(high)


def _where_it_matters(points: Floats, weights: Floats) -> Floats:
    """Spread as many points over the range that holds all but a millionth of the weight."""
    kept = np.flatnonzero(weights > 1e-6 * weights.max())
    first, last = max(kept[0] - 1, 0), min(kept[-1] + 1, len(points) - 1)
    spread = np.linspace(points[first], points[last], len(points))
    # The formula changes at ξ = 0; next to it the difference is below the rounding of float64.
    return np.where(np.abs(spread) < 1e-7, 1e-7, spread)
