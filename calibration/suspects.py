"""Good scores that do not belong to the others: very likely defects among the images of good parts.

Excesses over a high score follow a generalised Pareto distribution (see ``calibration.tail``). The highest
one, two … up to a fifth of the scores are separated from the rest in turn. From the rest alone the tail is
fitted, with the separated ones censored: only that they lie above it is used. So defects do not hide each
other, and the tail is as heavy as the good scores have it. A separation counts by the probability that so
many honest scores would all lie so far above the rest.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibration.tail import FEWEST_SCORES

_SHARE: Final = 0.2
"""Of the scores that may be suspect: of more it is not known which are the good ones."""
_FEWEST, _MOST = 3, 25
_BY_CHANCE: Final = 0.03
"""Probability that honest scores give any suspect."""

_MOST_IN_TAIL: Final = 200
_SHAPES: Final = np.arange(-0.54, 1.2, 0.12)  # none is 0, where the formula is another
_SHAPE_DEVIATION: Final = 0.2
"""Of the prior of the tail's shape, around an exponential one: a few scores hardly determine it."""
_LOG_SCALES: Final = np.linspace(-2.2, 1.6, 30)

Floats = NDArray[np.float64]


def suspects(scores: Floats) -> list[int]:
    """Find good scores that do not belong to the others.

    The most significant separation is taken, and the rest looked through again.

    Args:
        scores: of good parts, float64; fewer than 21 give no suspects.

    Returns:
        Indices into ``scores``, highest score first.
    """
    order = np.argsort(scores)[::-1]
    most = min(max(_FEWEST, math.ceil(_SHARE * len(scores))), _MOST, len(scores) - FEWEST_SCORES)
    found = 0
    while found < most:
        counts = np.arange(1, most - found + 1)
        # One or two are likelier than many: each separation has its part of the probability of an error.
        errors = _BY_CHANCE / counts**2 / (1 / counts**2).sum()
        by_chance = np.array([_by_chance(scores[order[found:]], int(count)) for count in counts])
        best = int((by_chance / errors).argmin())
        if by_chance[best] >= errors[best]:
            break
        found += int(counts[best])
    return [int(index) for index in order[:found]]


def _by_chance(falling: Floats, count: int) -> float:
    """Give the probability that the highest ``count`` scores lie so far above the others by chance."""
    end = min(len(falling) - 1, count + min(len(falling) // 2, _MOST_IN_TAIL))
    excesses = falling[count:end] - falling[end]
    if excesses.mean() <= 0:
        return 1.0
    scales = excesses.mean() * np.exp(_LOG_SCALES)
    survival = _log_survival(excesses, scales)
    shapes = _SHAPES[:, None]
    # All that is known of those above is that they exceed the highest of the others.
    log_weights = ((1 + shapes) * survival.sum(axis=2) - len(excesses) * np.log(scales)) + (
        count * survival[:, :, 0] - 0.5 * (shapes / _SHAPE_DEVIATION) ** 2
    )
    weights = np.exp(log_weights - log_weights.max())
    beyond = _log_survival(falling[count - 1 : count] - falling[end], scales)[:, :, 0]
    possible = weights > 0
    chance = np.exp(count * (beyond[possible] - survival[:, :, 0][possible]))
    return float(weights[possible] @ chance / weights.sum())


def _log_survival(excesses: Floats, scales: Floats) -> Floats:
    """Give ln P(an excess is larger), shapes × scales × excesses; -inf beyond the end of a tail."""
    shapes = _SHAPES[:, None, None]
    growth = np.maximum(1 + shapes * excesses / scales[:, None], 0)
    with np.errstate(divide="ignore"):
        logs: Floats = np.where(growth > 0, -np.log(growth) / shapes, -np.inf)
    return logs
