"""Suggests where to look, from good pictures: all but what never changes and carries no part."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from pictures.frames import Frame, Size
from pictures.mask import Levels, Region

FEWEST_PICTURES = 5

_FLAT = 10.0
"""Grey levels by which the background may vary, from picture to picture and from place to place."""
_BACKGROUND = 0.02
"""Of the picture: less is no background worth a mask."""
_SPECK = 0.001
"""Of the picture: what is smaller and lies in the background is dirt, not a part."""


def suggest(pictures: Iterable[Frame], margin: float) -> tuple[Size, tuple[Region, ...]]:
    """Find the part's outline.

    The background is what is even, reaches the picture's edge, and is the same in each picture.

    Args:
        pictures: at least five, H×W×3 uint8, BGR, all of one size; parts lie in one place in all of them.
        margin: pixels around the part that are looked at, too.

    Returns:
        Height and width of the pictures, and a polygon around each part.

    Raises:
        InputError: there are too few pictures, they differ in size, or they have no background, or no part.
    """
    count = 0
    low = high = total = np.empty((0, 0, 3), dtype=np.float32)
    for picture in pictures:
        smooth: Levels = cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.float32)
        if count == 0:
            low = high = total = smooth
        elif smooth.shape != low.shape:
            raise InputError(
                f"{smooth.shape[1]}×{smooth.shape[0]} pixels, but the first has "
                f"{low.shape[1]}×{low.shape[0]}: expected pictures of one camera"
            )
        else:
            low, high, total = np.minimum(low, smooth), np.maximum(high, smooth), total + smooth
        count += 1
    if count < FEWEST_PICTURES:
        raise InputError(f"found {count} pictures, expected at least {FEWEST_PICTURES} of good parts")
    size = Size(*low.shape[:2])
    background = _background(low, high, total / np.float32(count))
    part = (~background).astype(np.uint8)
    part = _without_specks(part, _SPECK * part.size)
    if part.mean() > 1 - _BACKGROUND:
        raise InputError(
            "no background was found that is even, the same in all pictures and at their edge: draw a mask"
        )
    if not part.any():
        raise InputError("no part was found: the pictures are even, and all the same")
    reach = max(1, round(margin))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    part = cv2.dilate(part, disc).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = sorted(outlines, key=cv2.contourArea, reverse=True)
    polygons = [cv2.approxPolyDP(outline, 1.0, True)[:, 0].tolist() for outline in largest]
    return size, tuple(
        Region(name="part" if index == 1 else f"part {index}", polygon=tuple((x, y) for x, y in polygon))
        for index, polygon in enumerate((p for p in polygons if len(p) >= 3), start=1)
    )


def _background(low: Levels, high: Levels, mean: Levels) -> NDArray[np.bool_]:
    """Find what is even and never changes, and reaches the picture's edge."""
    changes = (high - low).max(axis=2)
    x, y = (cv2.Sobel(mean, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    uneven = np.abs(np.stack([x, y])).max(axis=(0, 3))
    # Where the camera's noise is larger everywhere, so is what the quietest places show of it.
    noise = min(float(np.quantile(changes, 0.02)), _FLAT)
    still = ((changes <= noise + 2 * _FLAT) & (uneven <= _FLAT / 4)).astype(np.uint8)
    _, labels = cv2.connectedComponents(still, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    reaching = np.unique(edge[edge > 0])
    background: NDArray[np.bool_] = np.isin(labels, reaching)
    return background


def _without_specks(part: NDArray[np.uint8], least: float) -> NDArray[np.uint8]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= least)
    kept: NDArray[np.uint8] = np.isin(labels, large[large > 0]).astype(np.uint8)
    return kept
