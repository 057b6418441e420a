"""What each anomaly map has in a score."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine_runtime.engine import Quantiles

Floats = NDArray[np.float32]


def score_parts(
    maps: Sequence[Floats], anomaly_maps: Floats, quantiles: Quantiles, weights: Floats | None
) -> Floats:
    """Give what the K normalised maps show where the score was taken: N×K, each row's mean is its score.

    Args:
        maps: K maps before normalisation, N×h×w each.
        anomaly_maps: from which the scores are, N×h×w, with the mask applied if there is one.
        quantiles: K×2, with which these were made.
        weights: of the mask, h×w, see ``weigh``.
    """
    cells = anomaly_maps.reshape(len(anomaly_maps), -1)
    if weights is not None:  # a cell that is not looked at has the value of one that is, perhaps the largest
        weights = weights.reshape(-1)
        cells = np.where(weights > 0, cells, -np.inf)
    peaks = cells.argmax(1)
    rows = np.arange(len(peaks))
    values = np.stack([plane.reshape(len(peaks), -1)[rows, peaks] for plane in maps], axis=1)
    q_a, q_b = quantiles.T
    parts: Floats = 0.1 * (values - q_a) / (q_b - q_a)
    return parts if weights is None else parts * weights[peaks, None]
