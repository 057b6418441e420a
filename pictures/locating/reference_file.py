"""The file of a taught part: the reference picture as PNG, and in a text chunk what was learned."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from foundation.errors import InputError, refused_by_system
from foundation.files import write_whole
from pictures.frames import Frame
from pictures.locating.reference import Reference, parse_reference
from pictures.png_text import AFTER_HEADER, text_in, with_text

A_REFERENCE: Final = "a file of 'inspectctl locate teach'"
_KEYWORD: Final = b"inspectd-locate"
_LONGEST: Final = 60_000


def write_reference(path: Path, reference: Reference, picture: Frame) -> None:
    """Write a taught part, whole or not at all.

    Args:
        path: ends in .png.
        reference: what was learned.
        picture: H×W×3 uint8, BGR: the picture that the reference was made from.

    Raises:
        InputError: the folder of ``path`` cannot be written.
    """
    png = np.asarray(cv2.imencode(".png", picture)[1]).tobytes()
    write_whole(path, with_text(png, _KEYWORD, reference.text.encode("ascii")))


def read_reference(path: Path) -> Reference:
    """Read a taught part.

    Raises:
        InputError: the file is missing, is no such file, or is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(AFTER_HEADER + 8 + len(_KEYWORD) + 1 + _LONGEST)
    except OSError as error:
        text = f"{path}: cannot be read: {error.strerror}; expected {A_REFERENCE}"
        raise refused_by_system(text, error) from error
    found = text_in(head, _KEYWORD)
    if found is None:
        raise InputError(
            f"{path}: holds no taught part; expected {A_REFERENCE}, not written by other programs"
        )
    try:
        return parse_reference(found.decode("ascii"))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is damaged: {error}; teach the part again") from error
