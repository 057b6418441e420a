"""Regions and tiles on the command line, as ``type`` of argparse; OpenCV is imported when they are read."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pictures.frames import Roi
    from pictures.tiles import Tiles


def region(text: str) -> "Roi":
    """Read ``x,y,width,height``."""
    from pictures.frames import parse_roi

    try:
        return parse_roi(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tiles(text: str) -> "Tiles":
    """Read ``size,overlap``."""
    from pictures.tiles import parse_tiles

    try:
        return parse_tiles(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
