"""The one preprocessing that training, calibration and the daemon share: crop, then area resize."""

import re
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from foundation.errors import InputError

Frame = NDArray[np.uint8]
"""H×W×3 uint8, BGR as OpenCV delivers."""


LARGEST = 65_535
"""Pixels of a side: more are a typing mistake."""


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}×{self.width}"


class Roi(NamedTuple):
    """Region of interest of a camera's picture, in its pixels, from its upper left corner."""

    x: Annotated[int, Ge(0), Le(LARGEST)]
    y: Annotated[int, Ge(0), Le(LARGEST)]
    width: Annotated[int, Ge(1), Le(LARGEST)]
    height: Annotated[int, Ge(1), Le(LARGEST)]

    def __str__(self) -> str:
        return f"{self.width}×{self.height}+{self.x}+{self.y}"

    @property
    def option(self) -> str:
        """As ``parse_roi`` reads it."""
        return f"{self.x},{self.y},{self.width},{self.height}"


def parse_roi(text: str) -> Roi:
    """Read ``x,y,width,height`` in pixels.

    Raises:
        ValueError: it is something else.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r" *[0-9]{1,9} *", part, re.ASCII) for part in parts):
        raise ValueError(f"found {text!r:.60}, expected x,y,width,height in whole pixels")
    roi = Roi(*map(int, parts))
    if roi.width == 0 or roi.height == 0:
        raise ValueError(f"found {text!r}, expected a width and height of at least 1")
    if max(roi) > LARGEST:
        raise ValueError(f"found {text!r}, expected at most {LARGEST} pixels")
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
