"""Large pictures are cut into overlapping tiles; an engine sees each tile as one frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from pictures.frames import Frame, Roi, Size, cut_out, fit
from pictures.image_file import read_image

SMALLEST_TILE = 16
MOST_TILES = 4096
"""Of one picture: more are a typing mistake, and would be found out by running out of memory."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Squares of ``size`` camera pixels; neighbours share ``overlap`` pixels.

    Raises:
        ValueError: the size is below 16, or the overlap is negative or more than half of it.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < SMALLEST_TILE:
            raise ValueError(f"found size {self.size}, expected at least {SMALLEST_TILE} pixels")
        if not 0 <= self.overlap <= self.size // 2:
            raise ValueError(
                f"found overlap {self.overlap}, expected 0 to {self.size // 2} pixels, half the size"
            )

    def __str__(self) -> str:
        return f"{self.size},{self.overlap}"


def parse_tiles(text: str) -> Tiles:
    """Read ``size,overlap`` in pixels, as ``str(tiles)`` writes it.

    Raises:
        ValueError: it is something else.
    """
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ValueError(f"{text!r:.60} is not size,overlap in whole pixels")
    return Tiles(*map(int, numbers))


class TileGrid:
    """Where the tiles of a region lie: row by row, its length the number of tiles.

    The upper left corners are ``size - overlap`` pixels apart; the last row and column are moved inwards, so
    that they end at the region's edge.
    """

    def __init__(self, tiles: Tiles, region: Size) -> None:
        """Lay tiles over a region.

        Args:
            tiles: their size and overlap.
            region: height and width in camera pixels.

        Raises:
            InputError: the region is smaller than a tile, or takes more than ``MOST_TILES``.
        """
        if tiles.size > min(region):
            raise InputError(
                f"a roi of {region.width}×{region.height} pixels is smaller than a tile of {tiles.size}"
            )
        rows, columns = (_count(side, tiles) for side in region)
        if rows * columns > MOST_TILES:
            raise InputError(
                f"a roi of {region.width}×{region.height} pixels takes {rows * columns} tiles of "
                f"{tiles.size}; expected at most {MOST_TILES}: give larger tiles"
            )
        self.tiles = tiles
        self.region = region
        self.tops = _corners(region.height, tiles)
        self.lefts = _corners(region.width, tiles)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def cut(self, picture: Frame, size: Size, roi: Roi | None = None, out: Frame | None = None) -> Frame:
        """Crop a picture to its region of interest, cut it into tiles and resize each as ``fit`` does.

        Args:
            picture: H×W×3 uint8, BGR.
            size: height and width of the engine's input.
            roi: the region that is cut; the whole picture when None.
            out: tiles×height×width×3 uint8, where they are written; allocated when None.

        Returns:
            ``out``.

        Raises:
            InputError: the region does not lie inside the picture, or is not the one of this grid.
        """
        seen = cut_out(picture, roi)
        height, width = seen.shape[:2]
        if (height, width) != self.region:
            raise InputError(
                f"{width}×{height} pixels; expected {self.region.width}×{self.region.height}, over which "
                "the tiles are laid"
            )
        if out is None:
            out = np.empty((len(self), *size, 3), dtype=np.uint8)
        side = self.tiles.size
        corners = ((top, left) for top in self.tops for left in self.lefts)
        for tile, (top, left) in zip(out, corners, strict=True):
            fit(seen[top : top + side, left : left + side], size, out=tile)
        return out

    def assemble(self, tiles: Frame) -> Frame:
        """Put tiles together to the region's picture again, in the scale in which the engine sees them.

        Args:
            tiles: tiles×height×width×3 uint8, from ``cut``.

        Returns:
            H×W×3 uint8, BGR: the region's size times the engine's input over the tiles' size, rounded.
        """
        height, width = tiles.shape[1:3]
        tops, lefts = (
            _scaled(self.tops, height / self.tiles.size),
            _scaled(self.lefts, width / self.tiles.size),
        )
        picture = np.empty((tops[-1] + height, lefts[-1] + width, 3), dtype=np.uint8)
        corners = ((top, left) for top in tops for left in lefts)
        for tile, (top, left) in zip(tiles, corners, strict=True):
            picture[top : top + height, left : left + width] = tile
        return picture


def lay_tiles(tiles: Tiles, roi: Roi | None, image: Path) -> TileGrid:
    """Lay tiles over the region of interest; over all of an image where there is none.

    Raises:
        InputError: the tiles do not fit into the region, or the image cannot be read.
    """
    region = Size(*read_image(image).shape[:2]) if roi is None else Size(roi.height, roi.width)
    try:
        return TileGrid(tiles, region)
    except InputError as error:
        raise InputError(f"tiles: {error}") from error


def _count(side: int, tiles: Tiles) -> int:
    return 1 - (tiles.size - side) // (tiles.size - tiles.overlap)


def _corners(side: int, tiles: Tiles) -> NDArray[np.int64]:
    regular = np.arange(_count(side, tiles), dtype=np.int64) * (tiles.size - tiles.overlap)
    corners: NDArray[np.int64] = np.minimum(regular, side - tiles.size)
    return corners


def _scaled(corners: NDArray[np.int64], scale: float) -> NDArray[np.int64]:
    scaled: NDArray[np.int64] = np.floor(corners * scale + 0.5).astype(np.int64)
    return scaled
