"""Types of the command line's options."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # OpenCV and torch, for which --help should not wait
    from models.efficientad.networks import ModelSize
    from pictures.frames import Roi, Size
    from pictures.tiles import Tiles


def natural(text: str) -> int:
    """Parse a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def image_size(text: str) -> "Size":
    """Parse ``N`` or ``HxW``."""
    from models.efficientad.networks import SMALLEST_SIDE
    from pictures.frames import Size

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in {1, 2} or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected N or HxW in pixels, for instance 256 or 256x320"
        )
    size = Size(int(sides[0]), int(sides[-1]))
    if min(size) < SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least {SMALLEST_SIDE} pixels per side")
    return size


def roi(text: str) -> "Roi":
    """Parse ``x,y,width,height``."""
    from pictures.frames import parse_roi

    try:
        return parse_roi(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def teacher_of_size(text: str) -> "tuple[ModelSize, Path]":
    """Parse ``SIZE=FILE``."""
    from models.efficientad.networks import SIZES

    size, equals, file = text.partition("=")
    if size not in SIZES or not equals or not file:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SIZE=FILE, SIZE one of {', '.join(SIZES)}")
    return size, Path(file)


def tiles(text: str) -> "Tiles":
    """Parse ``size,overlap``."""
    from pictures.tiles import parse_tiles

    try:
        return parse_tiles(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def rate(text: str) -> float:
    """Parse a positive number."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def decay(text: str) -> float:
    """Parse a number from 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to less than 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to less than 1")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
