from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Q_A, Q_B = 0.9, 0.995
"""Quantiles of the good maps that become 0 and 0.1 (paper §4.4)."""

MAP_NORMALISATION: Final = "map_normalisation"
"""Key of a model's metadata: how its maps are scaled."""
PEAKS: Final = "peaks"
MAP_NORMALISATIONS: Final = ("quantile", "gaussian", PEAKS)
"""What may stand there; the second is a way of training that calibration replaces by the first."""

MAP_WEIGHTS: Final = "map_weights"
"""Key of a model's metadata: how much each map counts, if not all alike."""

_COINCIDE = 1e-3


def good_map_quantiles(maps: NDArray[np.float32], metadata: Mapping[str, str]) -> NDArray[np.float32]:
    """Measure q_a and q_b of one kind of anomaly map over good images, in the way that its model asks for.

    Args:
        maps: N×h×w, before normalisation.
        metadata: of the model.

    Returns:
        q_a and q_b, float32.
    """
    return peak_quantiles(maps) if metadata.get(MAP_NORMALISATION) == PEAKS else map_quantiles(maps)


def weights_in(metadata: Mapping[str, str], maps: int) -> NDArray[np.float32]:
    """Read how much each map counts, K float32; 1 each where the metadata do not say.

    Raises:
        ValueError: these are not so many numbers above 0.
    """
    if MAP_WEIGHTS not in metadata:
        return np.ones(maps, dtype=np.float32)
    weights = np.array([float(part) for part in metadata[MAP_WEIGHTS].split(",")], dtype=np.float32)
    if weights.shape != (maps,) or not np.isfinite(weights).all() or not (weights > 0).all():
        raise ValueError(f"expected {maps} numbers above 0")
    return weights


def weighted(quantiles: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Let maps count by their weights: what became 0.1 becomes 0.1 times the weight.

    Args:
        quantiles: K×2, q_a and q_b of each map.
        weights: K, above 0.
    """
    q_a, q_b = quantiles.astype(np.float64).T
    return np.stack([q_a, q_a + (q_b - q_a) / weights], axis=1).astype(np.float32)


def peak_quantiles(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the mean of the images' largest values, and that and their standard deviation.

    Ten times the normalised largest value of an image is a z-score then, and so is the mean over several maps
    of which at most one has its peak in one cell, as where the others judge the picture as a whole.

    Args:
        maps: N×h×w, before normalisation.

    Returns:
        q_a and q_b, float32; both the same only where all images have one largest value.
    """
    peaks = maps.reshape(len(maps), -1).max(axis=1).astype(np.float64)
    return np.array([peaks.mean(), peaks.mean() + peaks.std()], dtype=np.float32)


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
