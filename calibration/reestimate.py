"""What the parts of a running line say of its threshold: the promise is held against what passed."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from calibration.drift_baseline import dependence
from calibration.tail import Floats, Threshold, Truncation, fit_threshold, tail_curve, tail_size
from foundation.errors import InputError

FEWEST_PASSES: Final = 100
MOST_PASSES: Final = 50_000
"""Of the newest parts: more say hardly more, and take longer to fit."""
_MOST_ABOVE: Final = 0.2
"""Of the passes, above a threshold that is asked for: a higher share is not a tail."""


@dataclass(frozen=True)
class JudgedParts:
    """What a line judged by one threshold, and what people said of it.

    Attributes:
        passes: scores of the parts that passed, in the order of time.
        rejects: how many were rejected.
        false_rejects: how many of these people called false.
        defects: how many of these people called defective.
    """

    passes: Floats
    rejects: int
    false_rejects: int = 0
    defects: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a line's own parts say.

    Attributes:
        rate: the false reject rate to be expected at the threshold that was asked for.
        interval: holds it with ``calibration.tail.CONFIDENCE``.
        threshold: the one for the wanted rate.
        parts: how many passes it rests on.
        rejects: how many parts were rejected meanwhile.
        dependence: how many successive parts say as much as one independent part.
    """

    rate: float
    interval: tuple[float, float]
    threshold: Threshold
    parts: int
    rejects: int
    dependence: float


def reestimate(judged: JudgedParts, present: float, rate: float, at: float | None = None) -> Estimate:
    """Estimate the false reject rate at a threshold, and the threshold for a wanted rate.

    Only passes are seen: the good parts above the threshold are among the rejects, with the defects. So the
    scores are truncated there (see ``calibration.tail``), and between ``false_rejects`` and all rejects but
    ``defects`` are missing. Successive parts may depend on each other, which counts as so many fewer.

    Args:
        judged: by the present threshold, newest last.
        present: that threshold.
        rate: wanted false reject rate.
        at: the threshold of which the rate is told; the present one when None.

    Raises:
        InputError: too few parts passed, too many were or would be rejected, or the scores do not vary.
    """
    passes = judged.passes[-MOST_PASSES:]
    if len(passes) < FEWEST_PASSES:
        raise InputError(
            f"found {len(passes)} parts that passed at this threshold, expected at least {FEWEST_PASSES}"
        )
    share = len(passes) / len(judged.passes)
    at = present if at is None else at
    above = float(np.mean(passes > at))
    if above > _MOST_ABOVE:
        raise InputError(
            f"threshold: found {at:.4g}, above which {above:.0%} of the parts that passed lie, expected a "
            "higher one"
        )
    highest = np.sort(passes)[-tail_size(len(passes), rate) :]
    tau = float(dependence((passes >= highest[0]).astype(np.float64)[:, None], least=1.0)[0])
    try:
        truncation = Truncation(
            at=present,
            passes=len(passes),
            fewest=int(judged.false_rejects * share),
            most=int(np.ceil((judged.rejects - judged.defects) * share)),
            dependence=tau,
        )
        threshold = fit_threshold(passes, rate, truncation)
        # The tail begins below the threshold that is asked for.
        [(_, expected, low, high)] = tail_curve(passes, max(rate, above), [at], truncation)
    except ValueError as error:
        raise InputError(
            f"no threshold can be fitted to what passed: {error}; say on the operators' page which rejects "
            "are defects, or run good parts alone and calibrate --camera --with-rejects"
        ) from error
    return Estimate(expected, (low, high), threshold, len(passes), judged.rejects, tau)
