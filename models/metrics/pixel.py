"""Metrics of anomaly maps against masks: pixel AUROC, AU-PRO and AU-sPRO.

All are areas under a curve over the false positive rate, of the share of defective pixels found or of the
mean overlap with the defects. The counts behind the curves are taken at some thousand thresholds, image by
image, so that memory does not grow with the number of pixels. Between two thresholds a curve that never falls
is known to stay between two steps, which bounds the error of the area; with all values as thresholds the
curves are exact.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.datasets.masks import Region, union
from models.metrics.bootstrap import Floats

LEVELS = 5000
"""Thresholds. On real maps the areas are then right to a few units in the fifth decimal."""

_CHUNK = 64
"""Drawn test sets whose curves are in memory at once."""


def thresholds(values: NDArray[np.float32], levels: int = LEVELS) -> NDArray[np.float32]:
    """Choose thresholds that follow a distribution of values, closer together towards its upper end.

    Args:
        values: a sample of those in the maps, of any shape.
        levels: the most to choose.

    Returns:
        Distinct values, ascending, at most ``levels``.
    """
    ordered = np.unique(values)
    if len(ordered) <= levels:
        return ordered
    ordered = np.sort(values, axis=None)
    shares = 1 - np.linspace(0, 1, levels) ** 2  # the false positive rates that count are the small ones
    return np.unique(ordered[np.round(shares * (len(ordered) - 1)).astype(np.int64)])


class PixelCurves:
    """Counts at every threshold, image by image.

    Args:
        thresholds: ascending; a pixel is positive at a threshold when its value is not below it.
    """

    def __init__(self, thresholds: NDArray[np.float32]) -> None:
        self._thresholds = thresholds
        self._false: list[NDArray[np.int32]] = []
        self._true: list[NDArray[np.int32]] = []
        self._overlaps: list[NDArray[np.float32]] = []
        self._image_of_region: list[int] = []

    def add(self, anomaly_map: NDArray[np.float32], regions: Sequence[Region]) -> None:
        """Count the pixels of one more image.

        Args:
            anomaly_map: H×W float32.
            regions: its defects; none for a good part.
        """
        for region in regions:
            found = self._at_least(anomaly_map.ravel()[region.indices])
            self._overlaps.append(np.minimum(found / region.saturation, 1).astype(np.float32))
            self._image_of_region.append(len(self._false))
        if regions:
            defective = union(regions, anomaly_map.shape)
            self._true.append(self._at_least(anomaly_map[defective]))
            self._false.append(self._at_least(anomaly_map[~defective]))
        else:
            self._true.append(np.zeros(len(self._thresholds) + 1, dtype=np.int32))
            self._false.append(self._at_least(anomaly_map.ravel()))

    def auroc(self, weights: Floats) -> "Areas":
        """Give the area under the ROC curve of the pixels, see ``au_pro`` for the arguments."""
        return self._areas(weights, np.array(self._true), np.arange(len(self._true)), 1.0, pooled=True)

    def au_pro(self, weights: Floats, limit: float) -> "Areas":
        """Give the area under the per-region overlap up to a false positive rate, divided by that rate.

        The overlap of a region is the share of its pixels that were found, at most 1: of all its pixels (PRO)
        or of its saturation area (sPRO). The curve is the mean over the regions.

        Args:
            weights: draws × images, how often each image counts.
            limit: highest false positive rate, above 0 and up to 1.
        """
        overlaps = np.array(self._overlaps, dtype=np.float32).reshape(-1, len(self._thresholds) + 1)
        return self._areas(weights, overlaps, np.array(self._image_of_region, dtype=np.int64), limit, False)

    def _at_least(self, values: NDArray[np.float32]) -> NDArray[np.int32]:
        """Count the values not below each threshold, from the highest on; at last, all of them."""
        below = np.searchsorted(np.sort(values), self._thresholds[::-1], side="left")
        return np.append(len(values) - below, len(values)).astype(np.int32)

    def _areas(
        self,
        weights: Floats,
        found: NDArray[np.int32] | NDArray[np.float32],
        image: NDArray[np.int64],
        limit: float,
        pooled: bool,
    ) -> "Areas":
        """Integrate the sum of ``found`` over its last value, or over the number of its rows."""
        false = np.array(self._false, dtype=np.float64)
        counts = found.astype(np.float64)
        values, errors = np.full((2, len(weights)), np.nan)
        for start in range(0, len(weights), _CHUNK):
            rows = weights[start : start + _CHUNK]
            x = rows @ false
            y = rows[:, image] @ counts
            whole = y[:, -1] if pooled else rows[:, image].sum(axis=1)
            for row in np.flatnonzero((whole > 0) & (x[:, -1] > 0)):
                area = area_under(x[row] / x[row, -1], y[row] / whole[row], limit)
                values[start + row], errors[start + row] = area
        return Areas(values, errors)


class Areas:
    """Areas under curves, one per draw.

    Args:
        values: the areas; NaN where a draw has no defect or no good pixel.
        errors: by how much each may at most be wrong, the thresholds being finitely many.
    """

    def __init__(self, values: Floats, errors: Floats) -> None:
        self.values = values
        self.errors = errors


def area_under(x: Floats, y: Floats, limit: float) -> tuple[float, float]:
    """Integrate a curve from 0 to a limit by trapezoids and divide by the limit.

    Args:
        x: false positive rates, N float64, ascending to 1; the curve starts at (0, 0).
        y: N float64, never falling.
        limit: above 0 and up to 1.

    Returns:
        The area and how far that of any curve through these points which never falls may be from it.
    """
    x, y = np.append(0.0, x), np.append(0.0, y)
    inside = int(np.searchsorted(x, limit, side="right"))
    widths, heights = np.diff(x[:inside]), np.diff(y[:inside])
    area = float(widths @ (y[: inside - 1] + heights / 2))
    error = float(widths @ heights) / 2
    if inside < len(x):  # the last trapezoid is cut by the limit
        width = limit - x[inside - 1]
        rise = y[inside] - y[inside - 1]
        cut = rise * width / (x[inside] - x[inside - 1])
        area += width * (y[inside - 1] + cut / 2)
        error += width * rise
    return area / limit, error / limit
