"""The threshold: an extreme-value fit of the upper tail of good scores.

A wanted false reject rate of 1 in 1000 lies beyond what a few hundred good parts show, so the tail is
extrapolated by peaks over threshold: exceedances over a high score follow a generalised Pareto distribution
(Pickands 1975; Coles, "An Introduction to Statistical Modeling of Extreme Values", chapter 4). Few images
hardly determine its shape ξ, and a maximum-likelihood fit then gives thresholds between much too low and
absurd. Here ξ has the prior N(0, 0.15²): from light tails to moderately heavy ones, around the exponential.
The posterior of scale and shape is summed on a grid: no iteration that can fail, nothing random.

A line that rejects shows the scores of good parts below its threshold only: what is above is rejected, with
the defects. Such scores are truncated. Each excess then has the density of the tail divided by the share of
it that lies below the truncation (Aban, Meerschaert and Panorska, "Parameter estimation for the truncated
Pareto distribution", JASA 101, 2006; for generalised Pareto tails Beirlant, Fraga Alves and Reynkens,
"Fitting tails affected by truncation", Electronic Journal of Statistics 11, 2017), and the parts that were
rejected meanwhile bound how many good ones are missing.
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
_LOG_SCALES_TRUNCATED = (-1.6, 3.0, 60)
"""The less of a tail is seen, the less its mean excess says of its scale."""
_RATE_POINTS = 32
_MOST_MISSING = 0.1
"""Of all parts, as possible false rejects: with a fifth, intervals held in 57 to 100 % of simulated lines."""
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


@dataclass(frozen=True)
class Truncation:
    """What is known of good parts whose scores are missing because they were rejected.

    Attributes:
        at: the threshold above which they were.
        passes: how many parts passed meanwhile; the scores may be a sample of theirs.
        fewest: so many good parts at least were rejected: what people called false rejects.
        most: so many at most: what was rejected, but for what people called defective.
        dependence: how many successive scores say as much as one independent score; 1 where they do not
            depend on each other.
    """

    at: float
    passes: int
    fewest: int
    most: int
    dependence: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what says too little.

        Raises:
            ValueError: so many parts may be missing that the others do not tell where good parts end.
        """
        if self.most > _MOST_MISSING * (self.most + self.passes):
            raise ValueError(
                f"{self.most} rejects beside {self.passes} passes, expected at most one in ten: what passed "
                "does not tell where good parts end"
            )


def fit_threshold(scores: Floats, rate: float, truncation: Truncation | None = None) -> Threshold:
    """Find the score that a good part exceeds with the wanted probability.

    The threshold is the posterior predictive quantile: what is to be *expected* at it is the wanted rate, the
    uncertainty of the fit included, so few images give a higher threshold than many.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, in (0, 0.1].
        truncation: what is known of the scores that are missing; None where none is.

    Raises:
        ValueError: fewer than 20 scores, or the upper ones are all equal.
    """
    return _threshold(*_fitted(scores, rate, truncation), rate)


def _threshold(start: float, tail: "_Tail", rate: float) -> Threshold:
    excess = tail.quantile(rate)
    interval = tail.rate_interval(excess)
    return Threshold(
        value=start + excess,
        wanted_rate=rate,
        rate_interval=interval,
        tail_size=tail.size,
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
    start, tail = _fitted(scores, 0.0)
    ordered = np.sort(scores)
    return [
        tail.expected_rate(threshold - start)
        if threshold >= start
        else 1 - float(np.searchsorted(ordered, threshold, side="right")) / len(ordered)
        for threshold in thresholds
    ]


def with_more(scores: Floats, rate: float, more: int, truncation: Truncation | None = None) -> Threshold:
    """Imagine more good parts, spread as those that were seen, and find the threshold that they would give.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, in (0, 0.1].
        more: how many.
        truncation: as for ``fit_threshold``.

    Raises:
        ValueError: as ``fit_threshold``.
    """
    return _threshold(*_fitted(scores, rate, truncation, more), rate)


def tail_curve(
    scores: Floats, rate: float, thresholds: Sequence[float], truncation: Truncation | None = None
) -> list[tuple[float, float, float, float]]:
    """Tell what the fit says of the tail: threshold, expected rate above it, and the interval's two ends.

    Args:
        scores: of n ≥ 20 good parts, float64.
        rate: wanted false reject rate, which says how much of the scores the tail is.
        thresholds: those below the tail's start are left out.
        truncation: as for ``fit_threshold``.

    Raises:
        ValueError: as ``fit_threshold``.
    """
    start, tail = _fitted(scores, rate, truncation)
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


def _fitted(
    scores: Floats, rate: float, truncation: Truncation | None = None, more: int = 0
) -> tuple[float, "_Tail"]:
    """Give where the tail of some scores starts, and the tail; ``more`` scores are imagined."""
    if len(scores) < FEWEST_SCORES:
        raise ValueError(f"{len(scores)} good scores; at least {FEWEST_SCORES} are needed")
    size = tail_size(len(scores), rate)
    ordered = np.sort(scores)
    start = float(ordered[-size - 1])
    excesses = ordered[-size:] - start
    if not excesses.any():
        raise ValueError(f"the {len(excesses)} highest good scores are all {start:g}")
    count = len(scores) + more
    missing = None
    if truncation is not None:
        in_tail = truncation.passes * size / len(scores)
        missing = _Missing(truncation.at - start, in_tail, truncation)
    return start, _Tail(excesses, count, round(size * count / len(scores)), missing)


@dataclass(frozen=True)
class _Missing:
    """A truncation, seen from the tail's start.

    Attributes:
        excess: at which the scores end.
        in_tail: how many of those that passed lie above the tail's start.
        known: what is known.
    """

    excess: float
    in_tail: float
    known: Truncation

    def log_likelihood(self, beyond: Floats) -> Floats:
        """Tell how well shares of the tail beyond the truncation agree with what was rejected.

        For each good part that is seen in the tail, ``beyond / (1 - beyond)`` are to be expected that were
        rejected; their number is Poisson distributed.
        """
        from scipy.special import gammaincc

        known, dependence = self.known, self.known.dependence
        expected = self.in_tail * beyond / np.maximum(1 - beyond, 1e-12) / dependence
        likely = gammaincc(known.most / dependence + 1, expected)
        if known.fewest:
            likely = likely - gammaincc(known.fewest / dependence, expected)
        found: Floats = np.log(np.maximum(likely, 1e-300))
        return found


class _Tail:
    """Posterior of a generalised Pareto tail: shapes ξ, scales σ and their weights, three flat arrays.

    Args:
        excesses: of the scores above the tail's start, over it.
        count: number of all scores.
        size: number of scores above the tail's start; other than ``len(excesses)`` to imagine more scores,
            spread as those that were seen.
        missing: what is known of scores that are missing; None where none is.
    """

    def __init__(self, excesses: Floats, count: int, size: int, missing: _Missing | None = None) -> None:
        self.size = size
        self._missing = missing
        dependence = 1.0 if missing is None else missing.known.dependence
        self._count, self._size = count / dependence, size / dependence
        shapes = np.linspace(*_SHAPES)
        log_scales = math.log(excesses.mean()) + np.linspace(
            *(_LOG_SCALES if missing is None else _LOG_SCALES_TRUNCATED)
        )
        weights = self._weights(excesses, shapes, log_scales)
        # Many scores concentrate the posterior between two grid points: lay the grid again where they matter.
        shapes = _where_it_matters(shapes, weights.max(axis=1))
        log_scales = _where_it_matters(log_scales, weights.max(axis=0))
        self.weights = self._weights(excesses, shapes, log_scales).ravel()
        self.shapes = np.repeat(shapes, len(log_scales))
        self.scales = np.tile(np.exp(log_scales), len(shapes))
        self._beyond = np.zeros_like(self.shapes) if missing is None else self.survival(missing.excess)

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
        log_posterior = self._size * log_likelihood - 0.5 * (shapes[:, None] / _SHAPE_DEVIATION) ** 2
        if self._missing is not None:
            beyond = _survival(shapes[:, None], np.exp(log_scales), self._missing.excess)
            log_posterior -= self._size * np.log(np.maximum(1 - beyond, 1e-12))
            log_posterior += self._missing.log_likelihood(beyond)
        weights: Floats = np.exp(log_posterior - log_posterior.max())
        weights /= weights.sum()
        return weights

    def survival(self, excess: float) -> Floats:
        """P(score > start + excess | score > start), for every ξ and σ."""
        return _survival(self.shapes, self.scales, excess)

    def _in_tail(self, share: float) -> Floats:
        """Give the share of all scores that lies in the tail, for shares of those that are seen.

        Where good parts are missing, they are all in the tail.
        """
        seen = 1 - self._beyond
        return np.asarray(share / np.maximum(seen + share * self._beyond, 1e-12))

    def expected_rate(self, excess: float) -> float:
        """Give the expected share of all scores that lie more than ``excess`` over the tail's start."""
        share = (self._size + 1) / (self._count + 1)
        return float(self.weights @ (self._in_tail(share) * self.survival(excess)))

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
        from scipy.special import betaincinv  # here: what only asks for rates does without scipy

        # The share of a distribution above the (k+1)-th largest of n draws is Beta(k + 1, n - k) distributed.
        points = (np.arange(_RATE_POINTS) + 0.5) / _RATE_POINTS
        shares = betaincinv(self._size + 1, self._count - self._size, points)
        in_tail = np.stack([self._in_tail(share) for share in shares], axis=1)
        rates = (self.survival(excess)[:, None] * in_tail).ravel()
        order = np.argsort(rates)
        cumulated = np.cumsum(np.repeat(self.weights / _RATE_POINTS, _RATE_POINTS)[order])
        ends = np.searchsorted(cumulated, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = rates[order][np.minimum(ends, rates.size - 1)]
        return float(low), float(high)


def _survival(shapes: Floats, scales: Floats, excess: float) -> Floats:
    growth = np.maximum(1 + shapes * excess / scales, 0)
    # A negative ξ ends the tail at start - σ/ξ: growth is 0 from there on, and so is its positive power.
    alive = growth > 0
    powers: Floats = np.power(np.where(alive, growth, 1.0), -1 / shapes)
    powers[~alive] = 0.0
    return powers


def _where_it_matters(points: Floats, weights: Floats) -> Floats:
    """Spread as many points over the range that holds all but a millionth of the weight."""
    kept = np.flatnonzero(weights > 1e-6 * weights.max())
    first, last = max(kept[0] - 1, 0), min(kept[-1] + 1, len(points) - 1)
    spread = np.linspace(points[first], points[last], len(points))
    # The formula changes at ξ = 0; next to it the difference is below the rounding of float64.
    return np.where(np.abs(spread) < 1e-7, 1e-7, spread)
