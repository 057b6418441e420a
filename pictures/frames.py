"""The one preprocessing that training, calibration and the daemon share: crop, then area resize."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError

Frame = NDArray[np.uint8]
"""H×W×3 uint8, BGR as OpenCV delivers."""


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}×{self.width}"


class Roi(NamedTuple):
    """Region of interest of a camera's picture, in its pixels, from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}×{self.height}+{self.x}+{self.y}"


def parse_roi(text: str) -> Roi:
    """Read ``x,y,width,height`` in pixels.

    Raises:
        ValueError: it is something else.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ValueError(f"{text!r} is not x,y,width,height in whole pixels")
    roi = Roi(*map(int, parts))
    if roi.width == 0 or roi.height == 0:
        raise ValueError(f"{text!r} has no area")
    return roi


def cut_out(picture: Frame, roi: Roi | None) -> Frame:
    """Crop a picture to its region of interest; all of it when None.

    Raises:
        InputError: the region does not lie inside the picture.
    """
    if roi is None:
        return picture
    height, width = picture.shape[:2]
    inside = roi.x >= 0 and roi.y >= 0 and roi.width > 0 and roi.height > 0
    if not inside or roi.x + roi.width > width or roi.y + roi.height > height:
        raise InputError(f"roi {roi} does not lie inside the picture of {width}×{height} pixels")
    return picture[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]


def fit(picture: Frame, size: Size, roi: Roi | None = None, out: Frame | None = None) -> Frame:
    """Crop a picture to its region of interest and resize it to an engine's input.

    Area interpolation when it shrinks: every pixel counts, so a thin scratch fades but does not vanish.

    Args:
        picture: H×W×3 uint8, BGR.
        size: height and width to give.
        roi: the part to keep; the whole picture when None.
        out: where to write it, height×width×3 uint8, contiguous; into memory of its own when None.

    Returns:
        height×width×3 uint8, BGR, contiguous: ``out`` where it was given.

    Raises:
        InputError: the region does not lie inside the picture.
    """
    picture = cut_out(picture, roi)
    if picture.shape[:2] != tuple(size):
        shrinks = picture.shape[0] > size.height or picture.shape[1] > size.width
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (size.width, size.height), dst=out, interpolation=interpolation)  # type: ignore[assignment]
    if out is None:
        return np.ascontiguousarray(picture)
    if not np.may_share_memory(picture, out):
        out[...] = picture
    return out
