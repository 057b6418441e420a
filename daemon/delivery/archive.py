"""Pictures of rejected parts, and of some that passed, written beside the line and never in its way."""

import logging
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
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
from foundation.files import remove_left_over, write_whole
from pictures.frames import Frame, Roi, Size
from pictures.heatmap import overlay, shaded
from pictures.recording_note import RecordingNote, with_note
from pictures.view import Matrix, in_the_picture

_log = logging.getLogger("inspectd")
_MOST_WAITING = 32
_MOST_WAITING_BYTES = 128_000_000
_LONGEST_CLOSE_S = 10.0
_OVERLAY = ".overlay.jpg"
_PASS = f"-pass{_OVERLAY}"
_LONGEST_SIDE = 2048
"""Pixels of a part's picture as it lay."""
_NOT_SEEN = 48
"""Grey level of what the frame does not show of the camera's picture."""
_SHARE_OF_PASSES = 0.25
"""Of the archive's space: passes are many, and must not drive the rejects out."""


class Taken(NamedTuple):
    """How a frame was taken."""

    camera: str
    captured_at: str
    """ISO 8601, UTC."""
    region: Roi
    """What the frame shows of the camera's picture."""
    picture_size: Size
    """Of the camera's picture."""
    placed: Matrix | None = None
    """What takes a point of the reference's picture, in which ``region`` lies, to the camera's; None where
    they are one."""


class _Picture(NamedTuple):
    path: Path
    taken: Taken | None
    frame: Frame
    anomaly_map: NDArray[np.float32]
    product: Product


class Archive:
    """Writes two pictures for each reject: the frame as the engine saw it, and the overlay of its heat map.

    Where the part was brought to its place first, both show it as it lay in the camera's picture.

    The frame brings the note of where it comes from, as recorded pictures do: it may be trained on one day.

    Passes just below the threshold and a random sample of all of them can be kept, too: without them nobody
    can see what slips through, or what a lower threshold would do. They have a quarter of the space.

    When the disk cannot keep up, pictures are left out (the verdict then names none); verdicts never wait.
    The oldest pictures go when the folder holds more than it may.
    """

    def __init__(self, folder: Path, *, max_mb: int, near_misses: float = 0.0, sample: float = 0.0) -> None:
        """Prepare the folder, look through it, and start the thread that writes.

        Args:
            folder: where the pictures lie.
            max_mb: of all of them.
            near_misses: passes whose score is so close below the threshold are kept, as a share of it.
            sample: share of all passes that is kept, by chance.

        Raises:
            InputError: the folder cannot be made or read.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for pattern in ("*.png", f"*{_OVERLAY}"):
                remove_left_over(folder, pattern)
            found = sorted((_changed_ns(path), path) for path in folder.glob(f"*{_OVERLAY}"))
        except OSError as error:
            text = f"archive.folder: {folder} cannot be made or read: {error.strerror}"
            raise refused_by_system(text, error) from error
        self._folder = folder
        self._near_misses, self._sample = near_misses, sample
        self._queue: queue.Queue[_Picture | None] = queue.Queue(_MOST_WAITING)
        most_bytes = max_mb * 1_000_000
        # Where no passes are kept any more, those that are left go with the rejects.
        of_passes = int(most_bytes * _SHARE_OF_PASSES) if near_misses or sample else 0
        paths = [path for _, path in found]
        passes = {path for path in paths if of_passes and path.name.endswith(_PASS)}
        self._passes = _Kept([path for path in paths if path in passes], of_passes)
        self._rejects = _Kept([path for path in paths if path not in passes], most_bytes - of_passes)
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
        return self._keep(f"{name}{_OVERLAY}", frame, anomaly_map, product, taken)

    def wants_pass(self, score: float, threshold: float) -> bool:
        """Whether the pictures of a pass are to be kept."""
        if self._near_misses and score >= threshold - self._near_misses * abs(threshold):
            return True
        return self._sample > 0 and random.random() < self._sample

    def keep_pass(
        self,
        name: str,
        frame: Frame,
        anomaly_map: NDArray[np.float32],
        product: Product,
        taken: Taken | None = None,
    ) -> Path | None:
        """Have the pictures of a pass written as ``keep`` does; they leave room for rejects."""
        if self._queue.qsize() >= _MOST_WAITING // 2:
            return None
        return self._keep(f"{name}{_PASS}", frame, anomaly_map, product, taken)

    def _keep(
        self,
        name: str,
        frame: Frame,
        anomaly_map: NDArray[np.float32],
        product: Product,
        taken: Taken | None,
    ) -> Path | None:
        if self._queue.qsize() * frame.nbytes > _MOST_WAITING_BYTES:  # those of one line are equally large
            return None
        path = self._folder / name
        try:
            self._queue.put_nowait(_Picture(path, taken, frame.copy(), anomaly_map, product))
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
        while (picture := self._queue.get()) is not None:
            try:
                self._write(picture)
            except Exception as error:  # one picture must not keep the others from being written
                _log.error("archive: %s cannot be written: %s", picture.path, error)

    def _write(self, picture: _Picture) -> None:
        product = picture.product
        seen = product.picture(picture.frame)
        heat = product.geometry.at(Size(*seen.shape[:2])).spread(picture.anomaly_map)
        shown = overlay(seen, heat, product.threshold)
        if product.weights is not None:
            shown = shaded(shown, product.weights > 0, product.geometry.at(Size(*seen.shape[:2])))
        if picture.taken is not None and picture.taken.placed is not None:
            seen, shown = (_as_it_lay(some, picture.taken, picture.taken.placed) for some in (seen, shown))
        png = cv2.imencode(".png", seen)[1].tobytes()
        if picture.taken is not None:
            png = with_note(png, _note(picture.taken))
        jpeg = cv2.imencode(".jpg", shown)[1].tobytes()
        # Whoever looks, also after a power cut, finds a whole picture or none.
        for path, content in ((_frame_of(picture.path), png), (picture.path, jpeg)):
            write_whole(path, content)
        (self._passes if picture.path.name.endswith(_PASS) else self._rejects).add(picture.path)


class _Kept:
    """Pictures that share a space, the oldest first."""

    def __init__(self, found: Sequence[Path], most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept = deque((path, _bytes(path)) for path in found)
        # Of what is kept: what somebody has removed since is counted until its turn to go.
        self._bytes = sum(size for _, size in self._kept)

    def add(self, picture: Path) -> None:
        """Count a new one; the oldest go when there is no room for all."""
        self._kept.append((picture, _bytes(picture)))
        self._bytes += self._kept[-1][1]
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            oldest, size = self._kept.popleft()
            self._bytes -= size
            oldest.unlink(missing_ok=True)
            _frame_of(oldest).unlink(missing_ok=True)


def _as_it_lay(seen: Frame, taken: Taken, placed: Matrix) -> Frame:
    """Lay what was seen of a part over the camera's picture, which is kept to a size that people look at."""
    (height, width), region, size = seen.shape[:2], taken.region, taken.picture_size
    scale = min(1.0, _LONGEST_SIDE / max(size))
    smaller = max(1, round(region.width * scale)), max(1, round(region.height * scale))
    if smaller < (width, height):
        seen = cv2.resize(seen, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return in_the_picture(seen, placed, region, size, _NOT_SEEN).astype(np.uint8, copy=False)


def _note(taken: Taken) -> RecordingNote:
    height, width = taken.picture_size
    whole = taken.placed is not None or taken.region == Roi(0, 0, width, height)
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
