"""The process of one camera: grabs frames, writes them into slots and announces them.

Started by the daemon as ``python -m daemon.camera_process LINK SLOTS`` with the two descriptors it inherits.
It holds nothing the daemon needs: it may hang, crash or be killed at any instant.
"""

import ctypes
import signal
import socket
import sys
import time
from collections import deque

import cv2

from daemon import camera_link
from daemon.camera_link import CameraLink, LinkClosed
from daemon.cameras import BadPicture, Camera, CameraFailed, CameraSettings
from daemon.cameras.open import open_camera
from daemon.slots import FrameSlots
from engine_runtime.errors import InputError
from engine_runtime.frames import Roi, Size, fit

_PR_SET_PDEATHSIG = 1
_LONGEST_TEXT = 1000


class CameraProcess:
    """Feeds the frames of one camera into the daemon."""

    def __init__(self, link: CameraLink, slots: int) -> None:
        self._link = link
        message = link.receive()
        if message is None or message["kind"] != camera_link.SETTINGS:
            raise LinkClosed
        settings = message["settings"]
        roi = settings.pop("roi")
        self._settings = CameraSettings(**settings, roi=None if roi is None else Roi(*roi))
        self._size = Size(*message["size"])
        self._slots = FrameSlots(slots, message["slots"], self._size)
        self._free: deque[int] = deque(message["free"])
        self._frame: int = message["next_frame"]
        self._stop = False

    def run(self) -> None:
        """Deliver frames until the source ends, the camera fails or the daemon says stop."""
        try:
            camera = open_camera(self._settings)
            try:
                self._check_roi(camera)
                self._link.send(camera_link.OPENED, live=camera.live)
                self._deliver(camera)
            finally:
                camera.close()
            self._link.send(camera_link.ENDED)
        except (InputError, CameraFailed) as error:
            self._link.send(camera_link.FAILED, error=_sendable(str(error)))
        except LinkClosed:
            pass  # the daemon is gone

    def _check_roi(self, camera: Camera) -> None:
        roi, size = self._settings.roi, camera.picture_size
        if roi is None or size is None:
            return
        if roi.x + roi.width > size.width or roi.y + roi.height > size.height:
            raise InputError(
                f"roi {roi} does not lie inside the picture of {size.width}×{size.height} pixels"
            )

    def _deliver(self, camera: Camera) -> None:
        paced = not camera.live and self._settings.fps is not None
        waits_for_room = not camera.live and not paced
        period_ns = int(1e9 / self._settings.fps) if paced and self._settings.fps else 0
        due_ns = time.monotonic_ns()
        while True:
            self._hear(until_ns=due_ns, for_room=waits_for_room)
            if self._stop:
                return
            try:
                picture, error = camera.grab(), None
                if picture is None:
                    return
                part = picture.part
            except BadPicture as bad:
                picture, error, part = None, str(bad), bad.part
            self._slots.captured = self._frame
            captured_ns = time.monotonic_ns()
            self._hear()
            slot, region = None, None
            if picture is not None and self._free:
                height, width = picture.pixels.shape[:2]
                region = self._settings.roi or Roi(0, 0, width, height)
                try:
                    self._slots[self._free[0]][...] = fit(picture.pixels, self._size, region)
                    slot = self._free.popleft()
                except InputError as wrong:
                    error = str(wrong)
            self._link.send(
                camera_link.FRAME,
                frame=self._frame,
                slot=slot,
                captured_ns=captured_ns,
                part=_sendable(part),
                region=region,
                error=_sendable(error),
            )
            self._frame += 1
            # A source that fell behind goes on from now: it must not catch up in a burst.
            due_ns = max(due_ns + period_ns, captured_ns)

    def _hear(self, until_ns: int = 0, *, for_room: bool = False) -> None:
        """Take the daemon's messages until the given time, and until a slot is free where that is asked."""
        while not self._stop:
            if for_room and not self._free:
                message = self._link.receive()
            else:
                message = self._link.receive((until_ns - time.monotonic_ns()) / 1e9)
            if message is None:
                return
            match message["kind"]:
                case camera_link.STOP:
                    self._stop = True
                case camera_link.FREE:
                    self._free.extend(message["slots"])


def _sendable(text: str | None) -> str | None:
    """Keep to what a verdict can carry: a file's name may hold bytes that are no UTF-8, and be long."""
    return None if text is None else text.encode(errors="replace").decode()[:_LONGEST_TEXT]


def main() -> None:
    """Run the camera that the daemon describes over the inherited link."""
    # Ctrl-C reaches the whole group of the terminal; the daemon alone decides when a camera stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process that hangs in a driver would outlive a killed daemon and keep the device.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(1)  # the cores belong to the lanes
    link, slots = (int(argument) for argument in sys.argv[1:3])
    CameraProcess(CameraLink(socket.socket(fileno=link)), slots).run()


if __name__ == "__main__":
    main()
