"""What a threshold makes of a test set."""

from dataclasses import dataclass

import numpy as np

from models.evaluation.evaluate import Judged
from models.metrics.bootstrap import CONFIDENCE, Interval


@dataclass(frozen=True)
class Share:
    """Some of the images of a group, with the exact interval of the share."""

    hits: int
    count: int
    interval: Interval


@dataclass(frozen=True)
class OperatingPoint:
    """Rejecting whatever scores higher than a threshold."""

    threshold: float
    calibrated: bool
    """False when it was chosen on the very test images, which flatters it."""
    false_rejects: Share
    caught: Share
    caught_by_defect: dict[str, Share]
    missed: list[int]
    """Indices of the defective parts not rejected, lowest score first."""
    falsely_rejected: list[int]
    """Indices of the good parts rejected, highest score first."""


def operating_point(judged: Judged, threshold: float, calibrated: bool) -> OperatingPoint:
    """Sort a judged test set by a threshold."""
    rejected = judged.scores > threshold
    defective = judged.defective
    order = np.argsort(judged.scores)
    strata = np.array(judged.strata)
    return OperatingPoint(
        threshold=threshold,
        calibrated=calibrated,
        false_rejects=_share(rejected[~defective]),
        caught=_share(rejected[defective]),
        caught_by_defect={
            str(kind): _share(rejected[strata == kind]) for kind in np.unique(strata[defective])
        },
        missed=[int(index) for index in order if defective[index] and not rejected[index]],
        falsely_rejected=[int(index) for index in order[::-1] if rejected[index] and not defective[index]],
    )


def _share(hits: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Share:
    from calibration.detection import share_interval

    count = int(np.count_nonzero(hits))
    return Share(count, len(hits), Interval(*share_interval(count, len(hits), CONFIDENCE)))
