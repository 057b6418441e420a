"""What a picture of ours says of where it comes from, in a text chunk of its PNG file.

Recorded pictures show their region pixel by pixel, and the archive of rejects as the engine saw it, scaled.
It goes with the picture wherever that is copied or sorted to; a file beside it would not. Pictures from
elsewhere have none, and neither have those that another program has written again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from foundation.errors import InputError
from pictures.frames import LARGEST, Roi, Size
from pictures.png_text import AFTER_HEADER, text_in, with_text

_KEYWORD: Final = b"inspectd"
_LONGEST: Final = 10_000


@dataclass(frozen=True, slots=True)
class RecordingNote:
    """How a picture was taken."""

    source: str
    """The camera, without passwords."""
    camera_picture: Size
    """Height and width of the camera's whole picture."""
    roi: Roi | None
    """What was kept of it; None for all of it."""
    captured_at: str
    """ISO 8601, UTC."""
    tool_version: str


def with_note(png: bytes, note: RecordingNote) -> bytes:
    """Put a note into a PNG file, before its pixels, so that it is found without reading these."""
    return with_text(png, _KEYWORD, json.dumps(asdict(note)).encode("ascii"))


def note_of(path: Path) -> RecordingNote | None:
    """Read the note of a picture; None where it brings none.

    Raises:
        InputError: the file cannot be read, or its note is damaged.
    """
    try:
        with path.open("rb") as file:
            head = file.read(AFTER_HEADER + 8 + _LONGEST)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    text = text_in(head, _KEYWORD)
    if text is None:
        return None
    try:
        return _read(text)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: the note in it of where it comes from is damaged: record it again"
        ) from error


def _read(text: bytes) -> RecordingNote:
    content = json.loads(text)
    roi = content["roi"]
    note = RecordingNote(
        source=str(content["source"]),
        camera_picture=Size(*_sides(content["camera_picture"], 2)),
        roi=None if roi is None else Roi(*_sides(roi, 4)),
        captured_at=str(content["captured_at"]),
        tool_version=str(content["tool_version"]),
    )
    if min(note.camera_picture) < 1 or (note.roi is not None and min(note.roi.width, note.roi.height) < 1):
        raise ValueError("a side of 0 pixels")
    return note


def _sides(found: object, count: int) -> list[int]:
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"expected {count} numbers")
    if not all(type(side) is int and 0 <= side <= LARGEST for side in found):
        raise ValueError("expected whole pixels")
    return found
