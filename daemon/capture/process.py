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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2

from daemon.capture.choice import Choice, Missed, Outcome, Taken
from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import (
    BadPicture,
    Camera,
    CameraFailed,
    CameraSettings,
    LocateSettings,
    Picture,
    Present,
    Trigger,
)
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
from daemon.capture.triggers.inbox import Inbox
from daemon.capture.triggers.open import open_input
from daemon.capture.triggers.triggers import Triggers
from daemon.host.cores import keep_to
from foundation.errors import InputError, Unavailable
from pictures.frames import Roi, cut_out, fit
from pictures.locating.reference import parse_reference
from pictures.tiles import Tiles
from pictures.view import Looked, Matrix, View

_PR_SET_PDEATHSIG = 1
_CATCH_UP_NS = 20_000_000
_WATCH_S = 0.25  # how often is told what was seen
_OVERDUE_S = 0.02
_IDLE_MS = 20
_PAGE_BYTES = resource.getpagesize()


class _Stored(NamedTuple):
    """What became of what was seen of one part; see ``Arrival``."""

    slot: int | None = None
    region: Roi | None = None
    placed: Matrix | None = None
    lost: bool = False
    error: str | None = None


_NOT_STORED = _Stored()


class CameraProcess:
    """Feeds the frames of one camera into the daemon."""

    def __init__(self, link: CameraLink, told: Settings, slots: FrameSlots, counter: CaptureCounter) -> None:
        self._settings = settings_of(told)
        self._grid, self._parts = self._settings.grid(), self._settings.parts
        self._reference = None if told.reference is None else parse_reference(told.reference)
        self._view = View.of(self._settings.roi, self._reference)
        self._link = link
        self._slots = slots
        self._size = told.size
        self._free = deque(told.free)
        self._frame = told.next_frame
        self._picture = told.next_frame if told.next_picture is None else told.next_picture
        self._frozen = told.frozen
        self._counter = counter
        self._stop = self._opened = False
        self._waits_for_room = False
        self._numbering = threading.Lock()
        """Held from a frame's number until it is announced: faults come from other threads, too."""
        self._triggers: Triggers | None = None
        self._choice: Choice | None = None
        self._inbox: CameraLink | Inbox = link
        self._failure: CameraFailed | InputError | None = None

    def run(self) -> None:
        """Deliver frames until the source ends, the camera fails or the daemon says stop."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            keep_to(self._settings.cores)
            self._choose()
            camera = open_camera(self._settings, first_frame=self._picture)
            try:
                self._check_roi(camera)
                self._link.send(Opened(camera.live, camera.picture_size))
                if self._triggers is not None:
                    threading.Thread(target=self._look_after, args=(self._triggers,), daemon=True).start()
                self._deliver(camera)
            finally:
                camera.close()
            self._link.send(Ended())
        except FrozenCamera as frozen:
            self._link.send(Failed(str(frozen), frozen.digest))
        except (InputError, CameraFailed) as error:
            wrong = isinstance(error, InputError) and not isinstance(error, Unavailable)
            self._link.send(Failed(sendable(str(error)), wrong=wrong))

    def _choose(self) -> None:
        """Set up what chooses among the pictures; without it each is judged."""
        trigger, present = self._settings.trigger, self._settings.looked_for
        if present is not None:
            from daemon.capture.presence.presence import Presence

            self._choice = Presence(self._settings, present)
        elif trigger is not None:
            self._choice = self._triggers = Triggers(trigger, time.monotonic_ns())
            self._inbox = Inbox(self._link, self._triggers)
            edges = open_input(trigger, self._triggers)
            if edges is not None:
                threading.Thread(target=self._listen, args=(edges, self._triggers), daemon=True).start()

    def _listen(self, edges: Iterator[int], triggers: Triggers) -> None:
        """Hand on what an input says."""
        try:
            for at_ns in edges:
                triggers.fire(at_ns)
        except CameraFailed as error:
            self._failure = error

    def _look_after(self, triggers: Triggers) -> None:
        """Give triggers up for which no picture comes, also while the camera is silent."""
        while not self._stop:
            time.sleep(_OVERDUE_S)
            with contextlib.suppress(LinkClosed):
                self._announce_all(triggers.overdue(time.monotonic_ns()), None)

    def _beat(self) -> None:
        """Say every second that the process lives: a camera without parts before it may rightly be silent."""
        beat_s = HEARTBEAT_S
        if self._settings.chooses:  # its pictures say that it is well; most of them are not announced
            beat_s = min(_WATCH_S, (self._settings.stalled_after_s or _WATCH_S) / 3)
        with contextlib.suppress(LinkClosed):
            while True:
                self._link.send(Heartbeat())
                self._tell_watch()
                time.sleep(beat_s)

    def _tell_watch(self) -> None:
        if self._choice is not None and self._opened:
            watch = self._choice.watch()
            trouble = None if watch.trouble is None else sendable(watch.trouble)
            self._link.send(watch._replace(trouble=trouble, pictures=self._picture - 1))

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
        self._waits_for_room = waits_for_room = not camera.live and not paced
        period_ns = int(1e9 / self._settings.fps) if paced and self._settings.fps else 0
        due_ns = time.monotonic_ns()
        weighed_ns = 0
        suspicion = Suspicion(self._settings, camera.picture_size, self._frozen)
        self._opened = True
        while True:
            self._hear(until_ns=due_ns, for_room=waits_for_room, for_trigger=waits_for_room)
            if self._stop:
                break
            if self._failure is not None:
                raise self._failure
            picture, part, error = None, None, None
            try:
                picture = camera.grab()
                if picture is None:
                    break
                part = picture.part
            except BadPicture as bad:
                error, part = str(bad), bad.part
            self._picture += 1
            if self._choice is None:
                captured_ns = self._announce(picture, part, error, suspicion)
            else:
                captured_ns = self._choose_from(self._choice, picture, part, error, suspicion=suspicion)
            suspicion.give_up()
            if self._settings.max_mb is not None and captured_ns - weighed_ns > 1e9:
                self._weigh(self._settings.max_mb)
                weighed_ns = captured_ns
            # A source that fell behind goes on from now: it must not catch up in a long burst.
            due_ns = max(due_ns + period_ns, captured_ns - _CATCH_UP_NS)
        if self._choice is not None:
            self._announce_all(self._choice.finish(time.monotonic_ns()), suspicion)
            self._tell_watch()

    def _announce(
        self,
        picture: Picture | None,
        part: str | None,
        error: str | None,
        suspicion: Suspicion | None,
        *,
        captured_ns: int | None = None,
        trigger: int | None = None,
    ) -> int:
        """Number a frame and tell the daemon of it; give when it was captured, which is now if not known."""
        with self._numbering:
            parts = self._parts
            self._counter.captured = self._frame + parts - 1
            examined = captured_ns is not None
            captured_ns = captured_ns or time.monotonic_ns()
            if picture is not None and len(self._free) < parts:
                self._hear()  # some may have become free during the exposure
            looked: list[Looked] | None = None
            if picture is not None and suspicion is not None:
                try:
                    if not examined:
                        suspicion.examine(picture)
                    if self._free:
                        looked = self._view.look_at_all(picture.pixels, parts)
                except (InputError, BadPicture) as wrong:
                    error = str(wrong)
            for number in range(1, parts + 1):
                stored = _NOT_STORED
                if looked is not None and suspicion is not None:
                    stored = self._stored(looked[number - 1], suspicion)
                wrong_with = error or stored.error
                name = part if parts == 1 else f"{'' if part is None else f'{part} '}{number} of {parts}"
                self._link.send(
                    Arrival(
                        self._frame,
                        stored.slot,
                        captured_ns,
                        None if name is None else sendable(name),
                        stored.region,
                        None if wrong_with is None else sendable(wrong_with),
                        stored.placed,
                        stored.lost,
                        trigger if number == 1 else None,
                    )
                )
                self._frame += 1
            return captured_ns

    def _choose_from(
        self,
        choice: Choice,
        picture: Picture | None,
        part: str | None,
        error: str | None,
        *,
        suspicion: Suspicion,
    ) -> int:
        """Show a picture to what chooses. One that is bad may hide a part, so it is a fault as everywhere."""
        captured_ns = time.monotonic_ns()
        try:
            if picture is not None:
                suspicion.examine(picture)
                cut_out(picture.pixels, self._settings.roi)
        except (InputError, BadPicture) as wrong:
            picture, error = None, str(wrong)
        if picture is None:
            self._announce(None, part, error, None, captured_ns=captured_ns)
        else:
            self._announce_all(choice.look(picture, captured_ns), suspicion)
        return captured_ns

    def _announce_all(self, outcomes: list[Outcome], suspicion: Suspicion | None) -> None:
        for outcome in outcomes:
            match outcome:
                case Taken(picture, part, captured_ns, trigger):
                    if self._waits_for_room:
                        self._hear(for_room=True)
                    self._announce(picture, part, None, suspicion, captured_ns=captured_ns, trigger=trigger)
                case Missed(error, part, captured_ns, trigger):
                    self._announce(None, part, error, None, captured_ns=captured_ns, trigger=trigger)

    def _stored(self, looked: Looked, suspicion: Suspicion) -> _Stored:
        """Write what was seen of a part into the next free slot, which stays free if that cannot be."""
        locate = self._settings.locate
        lost = looked.lost is not None
        if lost and locate is not None and locate.not_found == "fault":
            return _Stored(error=f"locate: {looked.lost}")
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
            return _Stored(error=str(wrong))
        self._free.popleft()
        return _Stored(slot, region, looked.placed, lost)

    def _weigh(self, max_mb: int) -> None:
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        megabytes = (int(resident) - int(shared)) * _PAGE_BYTES / 1e6
        if megabytes > max_mb:
            raise CameraFailed(f"its process uses {megabytes:.0f} MB, more than max_mb {max_mb}")

    def _hear(self, until_ns: int = 0, *, for_room: bool = False, for_trigger: bool = False) -> None:
        """Take the daemon's messages until the given time, and for room or a trigger where that is asked."""
        while not self._stop:
            message = self._inbox.receive()
            match message:
                case Stop():
                    self._stop = True
                case Free(slots):
                    self._free.extend(slots)
                case None if for_room and len(self._free) < self._parts:
                    self._inbox.wait(None)
                case None if for_trigger and self._idle:
                    self._inbox.wait(_IDLE_MS)
                case None:
                    left_ns = until_ns - time.monotonic_ns()
                    if left_ns <= 0:
                        return
                    if left_ns < 1_000_000:
                        time.sleep(left_ns / 1e9)  # poll counts in whole milliseconds
                    else:
                        self._inbox.wait(left_ns // 1_000_000)

    @property
    def _idle(self) -> bool:
        """Whether a source that waits for its reader has to wait for a trigger."""
        return self._triggers is not None and not self._triggers.waits and self._failure is None


def settings_of(told: Settings) -> CameraSettings:
    """Read the camera's settings from what the daemon told."""
    roi, tiles, locate = (told.settings.get(key) for key in ("roi", "tiles", "locate"))
    present, trigger = told.settings["present"], told.settings["trigger"]
    structured = {
        "roi": roi and Roi(*roi),
        "tiles": tiles and Tiles(**tiles),
        "locate": locate and LocateSettings(**locate),
        "present": None if present is None else Present(**present),
        "trigger": None if trigger is None else Trigger(**trigger),
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
