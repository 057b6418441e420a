"""The anomaly maps of a region's tiles become one map over the region, without seams where they overlap."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pictures.frames import Size
from pictures.heatmap import MapGeometry
from pictures.tiles import TileGrid

_ROUNDING = 1e-6  # of a cell

Floats = NDArray[np.float64]


class TileMerge:
    """Merges maps of tiles; all that depends on the grid alone is worked out once.

    The merged map has the tiles' cells, as closely as the region lets them lie evenly. Each of its values is
    interpolated within a tile. From a tile to the next one the values cross over linearly between the centres
    of the first cell of the one and of the last cell of the other. Where the step between tiles is a whole
    number of cells, nothing is interpolated: outside the overlaps the values are the tiles' own.
    """

    def __init__(self, grid: TileGrid, tile: MapGeometry) -> None:
        """Work out where the cells go.

        Args:
            grid: the tiles' places in the region.
            tile: how the engine's map lies over its input.
        """
        self.grid = grid
        self.tile = tile
        scales = tuple(grid.tiles.size / side for side in tile.frame)  # camera pixels per pixel of the input
        margins = tuple(margin * scale for margin, scale in zip(tile.margin, scales, strict=True))
        self._rows, self._columns = (
            _Axis.over(
                corners=corners,
                margin=margins[axis],
                stride=tile.stride[axis] * scales[axis],
                cells=tile.map[axis],
            )
            for axis, corners in enumerate((grid.tops, grid.lefts))
        )
        self.geometry = MapGeometry(
            grid.region,
            Size(self._rows.cells.shape[1], self._columns.cells.shape[1]),
            (self._rows.stride, self._columns.stride),
        )
        """How the merged map lies over the region, in camera pixels."""
        self.least_overlap = math.ceil(2 * max(margins) - _ROUNDING)
        """Camera pixels: with a smaller overlap, the maps of neighbours leave a gap between them."""

    def __call__(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Merge maps.

        Args:
            maps: N·tiles×h×w float32: the tiles of N pictures, each row by row.

        Returns:
            N×H×W float32, of ``geometry.map``.
        """
        rows, columns = len(self.grid.tops), len(self.grid.lefts)
        height, width = self.tile.map
        mosaic = maps.reshape(-1, rows, columns, height, width).swapaxes(2, 3)
        mosaic = mosaic.reshape(-1, rows * height, columns * width)
        return self._columns.gathered(self._rows.gathered(mosaic, 1), 2)


class _Axis(NamedTuple):
    """What the merged map's rows, or columns, are made of."""

    stride: float
    """Camera pixels from one to the next."""
    cells: NDArray[np.int64]
    """Sources×count: rows of all tiles one after another."""
    weights: NDArray[np.float32]
    """Sources×count; each column adds up to 1."""

    @classmethod
    def over(cls, *, corners: NDArray[np.int64], margin: float, stride: float, cells: int) -> "_Axis":
        """Work out an axis.

        Args:
            corners: where the tiles begin.
            margin: of a tile, before and after what its map covers.
            stride: from one cell of a tile to the next.
            cells: of a tile.
        """
        first_cells = corners + margin + stride / 2
        last_cells = first_cells + (cells - 1) * stride
        # From the region's very first cell to its very last one.
        length = float(last_cells[-1] - first_cells[0])
        steps = math.ceil(length / stride - _ROUNDING)
        step = length / steps if steps else stride
        centres = first_cells[0] + np.arange(steps + 1) * step
        # Where tile k + 1 takes over from tile k; nothing is beyond the last one. Where their maps do not
        # meet, this is the gap between them.
        low = np.append(np.minimum(first_cells[1:], last_cells[:-1]), np.inf)
        high = np.append(np.maximum(first_cells[1:], last_cells[:-1]), np.inf)
        tile = np.searchsorted(high[:-1], centres, side="right")
        sources, shares = [], []
        left = np.ones(steps + 1)
        # As no overlap is more than half a tile, a third one at a place can only be the last, moved inwards.
        for _ in range(min(3, len(corners))):
            handed_on = _ramp(centres, low[tile], high[tile])
            place = np.clip((centres - first_cells[tile]) / stride, 0, cells - 1)
            below = np.floor(place + _ROUNDING).astype(np.int64)
            beyond = np.where(place - below > _ROUNDING, place - below, 0)
            sources += [tile * cells + below, tile * cells + np.minimum(below + 1, cells - 1)]
            shares += [left * (1 - handed_on) * (1 - beyond), left * (1 - handed_on) * beyond]
            left = left * handed_on
            tile = np.minimum(tile + 1, len(corners) - 1)
        weights = np.stack(shares)
        weights[weights < _ROUNDING**2] = 0
        order = np.argsort(-weights, axis=0, kind="stable")[: int((weights > 0).sum(axis=0).max())]
        return cls(
            step,
            np.take_along_axis(np.stack(sources), order, axis=0),
            np.take_along_axis(weights, order, axis=0).astype(np.float32),
        )

    def gathered(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Add up the sources along an axis of N×H×W values."""
        shape = (-1, 1) if axis == 1 else (-1,)
        total: NDArray[np.float32] = values.take(self.cells[0], axis) * self.weights[0].reshape(shape)
        for cells, weights in zip(self.cells[1:], self.weights[1:], strict=True):
            total += values.take(cells, axis) * weights.reshape(shape)
        return total


def _ramp(at: Floats, low: Floats, high: Floats) -> Floats:
    """Rise linearly from 0 at ``low`` to 1 at ``high``; a step where both are one, 0 where they are ∞."""
    with np.errstate(invalid="ignore", divide="ignore"):
        risen = np.where(high > low, (at - low) / (high - low), at >= low)
    ramp: Floats = np.where(np.isinf(high), 0.0, np.clip(risen, 0, 1))
    return ramp
