"""How well scores tell defects from good parts."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from calibration.ranking import Ranking

Floats = NDArray[np.float64]


def auroc(good: Floats, defective: Floats) -> float:
    """Give the probability that a defective part scores higher than a good one, ties counting half.

    Args:
        good: scores of N good parts, at least one, float64.
        defective: scores of M defective parts, at least one, float64.
    """
    scores = np.concatenate([good, defective])
    ranking = Ranking(scores, np.arange(len(scores)) >= len(good))
    return float(ranking.auroc(np.ones((1, len(scores))))[0])


def share_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Give the exact (Clopper–Pearson) confidence interval of a share seen as ``hits`` in ``count``."""
    rest = (1 - confidence) / 2
    low = float(beta.ppf(rest, hits, count - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - rest, hits + 1, count - hits)) if hits < count else 1.0
    return low, high
