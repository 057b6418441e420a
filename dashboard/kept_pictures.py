"""The pictures that the archive keeps of a verdict, as the page gets them: found, checked, made small."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dashboard.records import Shown
from foundation.errors import InputError
from pictures.recording_note import RecordingNote, note_of

OVERLAY: Final = ".overlay.jpg"
FRAME: Final = ".png"
_MOST_BYTES: Final = 64_000_000
_MOST_THUMBNAIL_BYTES: Final = 4_000_000
_QUALITY: Final = 80
_LIKENESS_SIDE: Final = 24


class NoPicture(Exception):
    """There is no such picture; the code says why, as the page's catalogues have it."""

    def __init__(self, code: str, detail: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail

    def content(self) -> dict[str, Any]:
        """Give it as the page gets it."""
        return {"code": self.code, "values": {}, "detail": self.detail}


@dataclass(frozen=True)
class Picture:
    """A picture that is there."""

    path: Path
    width: int
    height: int


def path_of(verdict: Shown, folder: Path | None, what: str) -> Path:
    """Find a picture of a verdict.

    Args:
        verdict: as the line told it: a name in the archive, and nothing to be believed.
        folder: of the archive.
        what: "frame" or "overlay".

    Raises:
        NoPicture: there is none, or its name leads out of the archive.
    """
    if verdict.archive is None:
        raise NoPicture("none")
    if folder is None or "/" in verdict.archive or "\0" in verdict.archive or verdict.archive in {".", ".."}:
        raise NoPicture("outside", verdict.archive)
    overlay = folder / verdict.archive
    if overlay.is_symlink():
        raise NoPicture("outside", verdict.archive)
    if not verdict.archive.endswith(OVERLAY):
        return overlay
    path = overlay if what == "overlay" else overlay.with_name(verdict.archive.removesuffix(OVERLAY) + FRAME)
    if path.is_symlink():
        raise NoPicture("outside", verdict.archive)
    return path


def read(path: Path) -> bytes:
    """Read a picture's file.

    Raises:
        NoPicture: it is gone, or cannot be read.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise NoPicture("damaged", f"{path.name}: is larger than {_MOST_BYTES} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NoPicture("gone") from error
    except OSError as error:
        raise NoPicture("damaged", f"{path.name}: cannot be read: {error.strerror}") from error


def decoded(path: Path) -> NDArray[np.uint8]:
    """Read and decode a picture strictly: H×W×3, BGR.

    Raises:
        NoPicture: it is gone, or damaged.
    """
    from pictures.image_file import read_image

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise NoPicture("damaged", f"{path.name}: is larger than {_MOST_BYTES} bytes")
        return read_image(path)
    except FileNotFoundError as error:
        raise NoPicture("gone") from error
    except OSError as error:
        raise NoPicture("damaged", f"{path.name}: cannot be read: {error.strerror}") from error
    except InputError as error:
        raise NoPicture("damaged", str(error)) from error


def look_at(path: Path) -> Picture:
    """Decode a picture to see that it is sound, and tell its size.

    Raises:
        NoPicture: it is gone, or damaged.
    """
    height, width = decoded(path).shape[:2]
    return Picture(path, width, height)


def note(path: Path) -> RecordingNote | None:
    """Read what a frame says of its region; None where it says nothing that can be read."""
    try:
        return note_of(path)
    except InputError:
        return None


class Thumbnails:
    """Small copies of pictures, the ones that were asked for last kept in memory. For several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], bytes] = OrderedDict()
        self._bytes = 0
        self._turn = threading.Lock()

    def of(self, path: Path, side: int) -> bytes:
        """Give a JPEG whose longer side is so long at the most.

        Raises:
            NoPicture: it is gone, or damaged.
        """
        with self._turn:
            kept = self._kept.get((path, side))
            if kept is not None:
                self._kept.move_to_end((path, side))
                return kept
        made = jpeg(decoded(path), side)
        with self._turn:
            if (path, side) not in self._kept:
                self._kept[path, side] = made
                self._bytes += len(made)
            while self._bytes > _MOST_THUMBNAIL_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made


def jpeg(picture: NDArray[np.uint8], side: int | None = None) -> bytes:
    """Write a picture, H×W×3 uint8 BGR, as JPEG, made smaller where its longer side exceeds ``side``."""
    import cv2

    height, width = picture.shape[:2]
    if side is not None and max(height, width) > side:
        factor = side / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def essence(path: Path) -> NDArray[np.float32]:
    """Make of a picture the few numbers by which alike ones are found: small, grey, of mean 0 and length 1.

    Returns:
        One row of float32, all of them of one length.

    Raises:
        NoPicture: it is gone, or damaged.
    """
    import cv2

    grey = cv2.cvtColor(decoded(path), cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_LIKENESS_SIDE, _LIKENESS_SIDE), interpolation=cv2.INTER_AREA)
    flat = small.astype(np.float32).ravel()
    flat -= flat.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 0 else flat
