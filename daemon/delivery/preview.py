"""Small live pictures of the cameras for who looks at the line now, made beside it and never in its way."""

import json
import logging
import math
import os
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import cv2

from daemon.host.scheduling import go_last
from daemon.judging.product import Product
from foundation.errors import refused_by_system
from pictures.frames import Frame
from verdicts.verdict import Verdict

_log = logging.getLogger("inspectd")
_SCHEMA: Final = 1
_INTERVAL_S: Final = 0.5
"""Between two pictures of a camera."""
_LOOK_S: Final = 1.0
_LEASE_S: Final = 5.0
_MOST_WAITING: Final = 4
_MOST_BYTES: Final = 1_000_000
"""What is copied of a frame while the line waits; of a larger one only every second or third pixel."""
_SIDE: Final = 480
_QUALITY: Final = 80
_LONGEST_CLOSE_S: Final = 1.0


class _Seen(NamedTuple):
    """What is to be shown of a frame."""

    pixels: Frame
    product: Product
    verdict: Verdict


class Preview:
    """Puts pictures into a folder while its file ``lease`` is touched; docs/preview.md tells the format.

    ``offer`` is called by the event loop; all else happens in a thread. What cannot be drawn at once is left
    out.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder and its lease, and start the thread.

        Raises:
            InputError: the folder cannot be made or written to.
        """
        self._folder = folder
        self._lease = folder / "lease"
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            _make_lease(self._lease)
        except OSError as error:
            text = f"preview.folder: {folder} cannot be made or written to: {error.strerror}"
            raise refused_by_system(text, error) from error
        self._leased = False
        self._failing = False
        self._next_s: dict[str, float] = {}
        self._queue: queue.Queue[_Seen | None] = queue.Queue(_MOST_WAITING)
        self._ending = False
        self._thread = threading.Thread(target=self._show_all, name="preview", daemon=True)
        self._thread.start()

    def offer(self, pixels: Frame, product: Product, verdict: Verdict) -> None:
        """Show a frame, unless nobody looks, or there is something better to do.

        Args:
            pixels: H×W×3 or tiles×H×W×3 uint8, BGR; copied.
            product: what it was judged by.
            verdict: what was found.
        """
        if not self._leased:
            return
        now_s = time.monotonic()
        if now_s < self._next_s.get(verdict.camera, 0.0) or self._queue.full():
            return
        self._next_s[verdict.camera] = now_s + _INTERVAL_S
        step = math.ceil(math.sqrt(pixels.nbytes / _MOST_BYTES))
        with suppress(queue.Full):
            self._queue.put_nowait(_Seen(pixels[..., ::step, ::step, :].copy(), product, verdict))

    def close(self) -> None:
        """End the thread; a folder that hangs is not waited for."""
        self._ending = True
        self._leased = False
        with suppress(queue.Full):
            self._queue.put_nowait(None)  # wakes it
        self._thread.join(_LONGEST_CLOSE_S)

    # The thread.

    def _show_all(self) -> None:
        go_last()
        look_s = 0.0
        while not self._ending:
            if time.monotonic() >= look_s:
                self._leased = self._is_leased() and not self._ending
                look_s = time.monotonic() + _LOOK_S
            try:
                seen = self._queue.get(timeout=min(_LOOK_S, max(0.0, look_s - time.monotonic())))
            except queue.Empty:
                continue
            if seen is None:
                return
            try:
                self._show(seen)
            except Exception as error:  # one picture must not keep the others back
                if not self._failing:
                    _log.error("preview: %s cannot be written: %s", self._folder, error)
                self._failing = True
            else:
                self._failing = False

    def _is_leased(self) -> bool:
        try:
            touched_s = self._lease.lstat().st_mtime
        except OSError:
            return False
        return abs(time.time() - touched_s) <= _LEASE_S

    def _show(self, seen: _Seen) -> None:
        picture = seen.product.picture(seen.pixels)
        height, width = picture.shape[:2]
        scale = min(1.0, _SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        note = _note(seen.verdict, size)
        jpeg = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
        self._replace(f"{seen.verdict.camera}.jpg", _with_comment(jpeg, note))
        self._replace(f"{seen.verdict.camera}.json", note)

    def _replace(self, name: str, content: bytes) -> None:
        beside = self._folder / f".{name}.new"
        beside.write_bytes(content)  # not synced: it is of this moment
        beside.replace(self._folder / name)


def _make_lease(lease: Path) -> None:
    """Make the file that viewers touch, so that the folder's group may, and no viewer is there yet."""
    try:
        descriptor = os.open(lease, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o660)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, 0o660)  # whatever the umask
        os.utime(descriptor, (0, 0))
    finally:
        os.close(descriptor)


def _note(verdict: Verdict, size: tuple[int, int]) -> bytes:
    content = {
        "schema": _SCHEMA,
        "line": verdict.line,
        "camera": verdict.camera,
        "frame": verdict.frame,
        "part": verdict.part,
        "boot": verdict.boot,
        "seq": verdict.seq,
        "kind": verdict.decision,
        "reason": verdict.reason,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "captured_at": verdict.captured_at,
        "width": size[0],
        "height": size[1],
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def _with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Put a comment before all other segments of a JPEG (ITU T.81, B.2.4.5)."""
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
