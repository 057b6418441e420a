"""Pictures of rejected parts, written beside the line and never in its way."""

import logging
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.judging.product import Product
from foundation.errors import refused_by_system
from pictures.frames import Frame, Roi, Size
from pictures.heatmap import overlay
from pictures.recording_note import RecordingNote, with_note

_log = logging.getLogger("inspectd")
_MOST_WAITING = 32
_MOST_WAITING_BYTES = 128_000_000
_LONGEST_CLOSE_S = 10.0
_OVERLAY = ".overlay.jpg"


class Taken(NamedTuple):
    """How a frame was taken."""

    camera: str
    captured_at: str
    """ISO 8601, UTC."""
    region: Roi
    """What the frame shows of the camera's picture."""
    picture_size: Size
    """Of the camera's picture."""


class _Reject(NamedTuple):
    path: Path
    taken: Taken | None
    frame: Frame
    anomaly_map: NDArray[np.float32]
    product: Product


class Archive:
    """Writes two pictures for each reject: the frame as the engine saw it, and the overlay of its heat map.

    The frame brings the note of where it comes from, as recorded pictures do: it may be trained on one day.
    When the disk cannot keep up, pictures are left out (the verdict then names none); verdicts never wait.
    The oldest pictures go when the folder holds more than it may.
    """

    def __init__(self, folder: Path, *, max_mb: int) -> None:
        """Prepare the folder, look through it, and start the thread that writes.

        Raises:
            InputError: the folder cannot be made or read.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = sorted((_changed_ns(path), path) for path in folder.glob(f"*{_OVERLAY}"))
        except OSError as error:
            text = f"archive.folder: {folder} cannot be made or read: {error.strerror}"
            raise refused_by_system(text, error) from error
        self._folder = folder
        self._most_bytes = max_mb * 1_000_000
        self._queue: queue.Queue[_Reject | None] = queue.Queue(_MOST_WAITING)
        self._kept = deque((path, _bytes(path)) for _, path in found)
        # Of what is kept: what somebody has removed since is counted until its turn to go.
        self._bytes = sum(size for _, size in self._kept)
        self._thread = threading.Thread(target=self._write_all, name="archive", daemon=True)
        self._thread.start()

    def keep(
        self,
        name: str,
        frame: Frame,
        anomaly_map: NDArray[np.float32],
        product: Product,
        taken: Taken | None = None,
    ) -> Path | None:
        """Have a reject's pictures written.

        Args:
            name: file name without suffix.
            frame: as it was judged, H×W×3 or tiles×H×W×3 uint8 BGR; copied.
            anomaly_map: h×w float32; kept.
            product: what it was judged by.
            taken: how it was taken; None where that is not known.

        Returns:
            Where the overlay will lie; None when too many pictures wait to be written.
        """
        if self._queue.qsize() * frame.nbytes > _MOST_WAITING_BYTES:  # those of one line are equally large
            return None
        path = self._folder / f"{name}{_OVERLAY}"
        try:
            self._queue.put_nowait(_Reject(path, taken, frame.copy(), anomaly_map, product))
        except queue.Full:
            return None
        return path

    def close(self) -> None:
        """Write what waits, then end the thread; a disk that hangs must not keep the line from ending."""
        give_up_s = time.monotonic() + _LONGEST_CLOSE_S
        with suppress(queue.Full):
            self._queue.put(None, timeout=_LONGEST_CLOSE_S)
        self._thread.join(max(0.0, give_up_s - time.monotonic()))
        if self._thread.is_alive():
            _log.error("archive: %s hangs; pictures that still wait are not written", self._folder)

    def _write_all(self) -> None:
        while (reject := self._queue.get()) is not None:
            try:
                self._write(reject)
            except Exception as error:  # one picture must not keep the others from being written
                _log.error("archive: %s cannot be written: %s", reject.path, error)

    def _write(self, reject: _Reject) -> None:
        product = reject.product
        seen = product.picture(reject.frame)
        heat = product.geometry.at(Size(*seen.shape[:2])).spread(reject.anomaly_map)
        shown = overlay(seen, heat, product.threshold)
        png = cv2.imencode(".png", seen)[1].tobytes()
        if reject.taken is not None:
            png = with_note(png, _note(reject.taken))
        _frame_of(reject.path).write_bytes(png)
        reject.path.write_bytes(cv2.imencode(".jpg", shown)[1].tobytes())
        self._kept.append((reject.path, _bytes(reject.path)))
        self._bytes += self._kept[-1][1]
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            oldest, size = self._kept.popleft()
            self._bytes -= size
            oldest.unlink(missing_ok=True)
            _frame_of(oldest).unlink(missing_ok=True)


def _note(taken: Taken) -> RecordingNote:
    height, width = taken.picture_size
    whole = taken.region == Roi(0, 0, width, height)
    return RecordingNote(
        source=taken.camera,
        camera_picture=taken.picture_size,
        roi=None if whole else taken.region,
        captured_at=taken.captured_at,
        tool_version=_version(),
    )


@cache  # looked up in the file system
def _version() -> str:
    return version("inspectd")


def _frame_of(picture: Path) -> Path:
    return picture.with_name(picture.name.removesuffix(_OVERLAY) + ".png")


def _changed_ns(picture: Path) -> int:
    """Time of its last change; 0 when somebody has removed it meanwhile."""
    try:
        return picture.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _bytes(picture: Path) -> int:
    """Bytes of an overlay and its frame; what somebody has removed meanwhile counts nothing."""
    size = 0
    for path in (picture, _frame_of(picture)):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
