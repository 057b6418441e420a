import numpy as np
from numpy.typing import NDArray

Q_A, Q_B = 0.9, 0.995
"""Quantiles of the good maps that become 0 and 0.1 (paper §4.4)."""

_COINCIDE = 1e-3


def map_quantiles(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure q_a and q_b of one kind of anomaly map over good images (paper §4.4).

    Where more than a tenth of all cells have one and the same value, as on a blank background, both quantiles
    may be that value, and the map would be divided by nothing. Then the mean stands for q_a.

    Args:
        maps: N×h×w, before normalisation.

    Returns:
        q_a and q_b, float32; both the same only where all of the maps is one value.
    """
    # numpy's quantile takes any number of values, torch's at most 16 million
    q_a, q_b = np.quantile(maps, (Q_A, Q_B))
    if q_b - q_a <= _COINCIDE * abs(q_b):
        q_a = min(q_a, maps.mean(dtype=np.float64))
    return np.array([q_a, q_b], dtype=np.float32)
