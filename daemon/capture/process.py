"""The process of one camera: grabs frames, writes them into slots and announces them.

Started by the daemon as ``python -m daemon.capture.process LINK SLOTS COUNTER`` with the descriptors it
inherits. It holds nothing the daemon needs: it may hang, crash or be killed at any instant.
"""

import contextlib
import ctypes
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path

import cv2

from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import BadPicture, Camera, CameraFailed, CameraSettings, LocateSettings
from daemon.capture.drivers.open import open_camera
from daemon.capture.drivers.suspicion import FrozenCamera, Suspicion
from daemon.capture.link import (
    HEARTBEAT_S,
    Arrival,
    CameraLink,
    Ended,
    Failed,
    Free,
    Heartbeat,
    LinkClosed,
    Opened,
    Settings,
    Stop,
    sendable,
)
from daemon.capture.slots import FrameSlots
from daemon.host.cores import keep_to
from foundation.errors import InputError, Unavailable
from pictures.frames import Roi, fit
from pictures.locating.reference import parse_reference
from pictures.tiles import Tiles
from pictures.view import Looked, View

_PR_SET_PDEATHSIG = 1
_CATCH_UP_NS = 20_000_000
_PAGE_BYTES = resource.getpagesize()


_NOT_STORED = Arrival(0, None, 0, None, None, None)


class CameraProcess:
    """Feeds the frames of one camera into the daemon."""

    def __init__(self, link: CameraLink, told: Settings, slots: FrameSlots, counter: CaptureCounter) -> None:
        self._settings = settings_of(told)
        self._grid = self._settings.grid()
        self._reference = None if told.reference is None else parse_reference(told.reference)
        self._view = View.of(self._settings.roi, self._reference)
        self._link = link
        self._slots = slots
        self._size = told.size
        self._free = deque(told.free)
        self._frame = told.next_frame
        self._frozen = told.frozen
        self._counter = counter
        self._stop = False

    def run(self) -> None:
        """Deliver frames until the source ends, the camera fails or the daemon says stop."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            keep_to(self._settings.cores)
            camera = open_camera(self._settings, first_frame=self._frame)
            try:
                self._check_roi(camera)
                self._link.send(Opened(camera.live, camera.picture_size))
                self._deliver(camera)
            finally:
                camera.close()
            self._link.send(Ended())
        except FrozenCamera as frozen:
            self._link.send(Failed(str(frozen), frozen.digest))
        except (InputError, CameraFailed) as error:
            wrong = isinstance(error, InputError) and not isinstance(error, Unavailable)
            self._link.send(Failed(sendable(str(error)), wrong=wrong))

    def _beat(self) -> None:
        """Say every second that the process lives: a camera without parts before it may rightly be silent."""
        with contextlib.suppress(LinkClosed):
            while True:
                self._link.send(Heartbeat())
                time.sleep(HEARTBEAT_S)

    def _check_roi(self, camera: Camera) -> None:
        roi, size = self._settings.roi, camera.picture_size
        taught = None if self._reference is None else self._reference.picture
        if size is not None and taught is not None and size != taught:
            raise InputError(
                f"locate.reference: was taught on pictures of {taught.width}×{taught.height} pixels, but the "
                f"camera gives {size.width}×{size.height}: teach the part on this camera"
            )
        size = size or taught
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
        weighed_ns = 0
        suspicion = Suspicion(self._settings, camera.picture_size, self._frozen)
        while True:
            self._hear(until_ns=due_ns, for_room=waits_for_room)
            if self._stop:
                return
            picture, part, error = None, None, None
            parts = self._settings.parts
            try:
                picture = camera.grab()
                if picture is None:
                    return
                part = picture.part
            except BadPicture as bad:
                error, part = str(bad), bad.part
            self._counter.captured = self._frame + parts - 1
            captured_ns = time.monotonic_ns()
            if len(self._free) < parts:
                self._hear()  # some may have become free during the exposure
            looked: list[Looked | None] = [None] * parts
            if picture is not None:
                try:
                    suspicion.examine(picture)
                    if self._free:
                        looked = [*self._view.look_at_all(picture.pixels, parts)]
                except (InputError, BadPicture) as wrong:
                    error = str(wrong)
            for number, look in enumerate(looked, start=1):
                stored = _NOT_STORED if look is None else self._stored(look, suspicion)
                wrong_with = error or stored.error
                name = part if parts == 1 else f"{'' if part is None else f'{part} '}{number} of {parts}"
                self._link.send(
                    stored._replace(
                        frame=self._frame,
                        captured_ns=captured_ns,
                        part=None if name is None else sendable(name),
                        error=None if wrong_with is None else sendable(wrong_with),
                    )
                )
                self._frame += 1
            suspicion.give_up()
            if self._settings.max_mb is not None and captured_ns - weighed_ns > 1e9:
                self._weigh(self._settings.max_mb)
                weighed_ns = captured_ns
            # A source that fell behind goes on from now: it must not catch up in a long burst.
            due_ns = max(due_ns + period_ns, captured_ns - _CATCH_UP_NS)

    def _stored(self, looked: Looked, suspicion: Suspicion) -> Arrival:
        """Write what was seen of a part into the next free slot, which stays free if that cannot be."""
        locate = self._settings.locate
        if looked.lost is not None and locate is not None and locate.not_found == "fault":
            return _NOT_STORED._replace(error=f"locate: {looked.lost}")
        if not self._free:
            return _NOT_STORED
        height, width = looked.seen.shape[:2]
        region = self._settings.roi or Roi(0, 0, width, height)
        slot = self._free[0]
        try:
            if self._grid is None:
                fit(looked.seen, self._size, out=self._slots[slot])
            else:
                self._grid.cut(looked.seen, self._size, out=self._slots[slot])
            suspicion.examine_stored(self._slots[slot])
        except (InputError, BadPicture) as wrong:
            return _NOT_STORED._replace(error=str(wrong))
        self._free.popleft()
        lost = looked.lost is not None
        return _NOT_STORED._replace(slot=slot, region=region, placed=looked.placed, lost=lost)

    def _weigh(self, max_mb: int) -> None:
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        megabytes = (int(resident) - int(shared)) * _PAGE_BYTES / 1e6
        if megabytes > max_mb:
            raise CameraFailed(f"its process uses {megabytes:.0f} MB, more than max_mb {max_mb}")

    def _hear(self, until_ns: int = 0, *, for_room: bool = False) -> None:
        """Take the daemon's messages until the given time, and until a slot is free where that is asked."""
        while not self._stop:
            message = self._link.receive()
            match message:
                case Stop():
                    self._stop = True
                case Free(slots):
                    self._free.extend(slots)
                case None if for_room and len(self._free) < self._settings.parts:
                    self._link.wait(None)
                case None:
                    left_ns = until_ns - time.monotonic_ns()
                    if left_ns <= 0:
                        return
                    if left_ns < 1_000_000:
                        time.sleep(left_ns / 1e9)  # poll counts in whole milliseconds
                    else:
                        self._link.wait(left_ns // 1_000_000)


def settings_of(told: Settings) -> CameraSettings:
    """Read the camera's settings from what the daemon told."""
    roi, tiles, locate = (told.settings.get(key) for key in ("roi", "tiles", "locate"))
    structured = {
        "roi": roi and Roi(*roi),
        "tiles": tiles and Tiles(**tiles),
        "locate": locate and LocateSettings(**locate),
    }
    return CameraSettings(**told.settings | structured)


def main() -> None:
    """Run the camera that the daemon describes over the inherited link."""
    # Ctrl-C reaches the whole group of the terminal; the daemon alone decides when a camera stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process that hangs in a driver would outlive a killed daemon and keep the device.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Where memory runs out, a camera process is what can be spared: it is started again.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    cv2.setNumThreads(1)  # the cores belong to the lanes
    end, slots, counter = (int(argument) for argument in sys.argv[1:4])
    link = CameraLink(socket.socket(fileno=end))
    with contextlib.suppress(LinkClosed):  # the daemon is gone
        link.wait(None)
        told = link.receive()
        if isinstance(told, Settings):
            frames = FrameSlots(slots, told.slots, settings_of(told).slot_shape(told.size))
            CameraProcess(link, told, frames, CaptureCounter(counter)).run()


if __name__ == "__main__":
    main()
