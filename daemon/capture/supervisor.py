"""The daemon's side of a camera: starts its process, hears it, notices its death and starts it again."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Protocol

from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import CameraSettings
from daemon.capture.link import (
    HEARTBEAT_S,
    Arrival,
    CameraLink,
    Ended,
    Failed,
    Fire,
    Free,
    Heartbeat,
    LinkClosed,
    MalformedPacket,
    Message,
    Opened,
    Settings,
    Stop,
    Watch,
    linked_pair,
    sendable,
)
from daemon.capture.slots import FrameSlots
from foundation.errors import InputError, Unavailable, printable
from pictures.frames import Size
from pictures.locating.reference import Reference
from verdicts.health import CameraState

__all__ = ["Arrival", "DaemonCamera", "FrameSink", "refuse_failed"]

PROCESS = [sys.executable, "-m", "daemon.capture.process"]
"""The command of a camera process; LINK, SLOTS and COUNTER follow, descriptors that it inherits."""

_OPENING_S = 20.0  # an RTSP camera that restarts takes seconds; a driver that hangs takes for ever
_HEARTBEAT_PATIENCE_S = 3.0
_CLOSING_S = 1.0
_DYING_S = 3.0  # a killed process is gone in milliseconds, unless a driver holds it inside the kernel
_SUPERVISION_S = 10.0  # by how much any of the above may be overdue in a daemon that works
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_RAN_WELL_S = 10.0
_MOST_PER_TURN = 64  # messages of one camera before the other ones are heard
_MOST_SKIPPED = 100  # frame numbers; a process that skips more is ended as faulty
_MOST_UNANNOUNCED = 1000  # more frames than fit into a link were never captured without being announced
_log = logging.getLogger("inspectd")


class FrameSink(Protocol):
    """Where a camera's frames go; called in the daemon's thread."""

    def arrived(self, camera: str, arrival: Arrival) -> None:
        """A frame was captured."""

    def camera_changed(self, camera: str) -> None:
        """The camera's state has changed."""


class Violation(Exception):
    """The process sent a message that makes no sense at its time."""


class DaemonCamera:
    """One configured camera, over all the processes that it needs.

    Frame numbers count from 1 without gaps. When a running camera fails, the sink gets one more frame, which
    was not stored: it tells of the failure.

    ``error`` is one line about what is wrong with it, or with its latest picture; None when nothing is.
    """

    def __init__(
        self,
        name: str,
        settings: CameraSettings,
        size: Size,
        *,
        judged_at_once: int,
        sink: FrameSink,
        counter: CaptureCounter,
        reference: Reference | None = None,
    ) -> None:
        """Allocate the camera's slots.

        Args:
            name: the camera's name in the config.
            settings: its entry there.
            size: the engine's input size.
            judged_at_once: frames that all lanes together may hold.
            sink: where the frames go.
            counter: its process counts its frames there; numbers go on after it.
            reference: the part that is looked for in its pictures; None where they are judged as they lie.

        Raises:
            InputError: there is not enough memory for the slots.
        """
        self.name = name
        self.settings = settings
        self.reference = reference
        self.state: CameraState = "opening"
        self.error: str | None = None
        self.wrong = False
        """Whether it failed because the config asks for something that cannot work."""
        self.tried = False
        """Whether its first opening has succeeded or failed."""
        # More slots than can be in use, so that there are always some to capture into.
        count = settings.waiting + judged_at_once + settings.parts
        shape = settings.slot_shape(size)
        try:
            self.slots = FrameSlots.create(count, shape)
        except OSError as error:
            wanted = count * math.prod(shape)
            there_is = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            refused = Unavailable if wanted < there_is else InputError  # others may give some back
            raise refused(
                f"cameras.{name}.waiting: found {settings.waiting}; its frames need {wanted / 1e6:.0f} MB of "
                f"shared memory: {error.strerror}"
            ) from error
        self.captured = counter.captured
        self.counter = counter
        self._size = size
        self._sink = sink
        self._in_use: set[int] = set()
        self._freed: list[int] = []
        self._free_timer: asyncio.Handle | None = None
        self.picture_size: Size | None = None if reference is None else reference.picture
        """Of the camera's pictures; None when it is not known or not the same for all."""
        self._frozen: bytes | None = None
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._stopping = False
        # Of the present process:
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._ending: asyncio.TimerHandle | None = None
        self._link: CameraLink | None = None
        self._opened: Opened | None = None
        self._opened_s = 0.0
        self._heartbeats = False
        self._heard_s = 0.0
        self._delivered_s = 0.0
        self._captured_ns = 0
        self._reason: str | None = None
        # Of a camera that chooses among its pictures:
        self.watch: Watch | None = None
        """What it has seen, over all its processes; None for a camera whose every picture is judged."""
        self._watched_before: Watch | None = None
        self._pictures = self._last_trigger = 0
        self._troubled = False
        self._fired: dict[int, Fire] = {}

    @property
    def must_make_room(self) -> bool:
        """Whether the camera goes on capturing and has no slot left to capture into."""
        live = self._opened is not None and self._opened.live
        return (live or self.settings.fps is not None) and self._has_no_room

    @property
    def _has_no_room(self) -> bool:
        return self.slots.count - len(self._in_use) < self.settings.parts

    @property
    def over(self) -> bool:
        """Whether no more frames will come: its source has ended, or has failed for good."""
        return self.state == "ended" or (self.state == "failed" and self.wrong and self._opened is not None)

    @property
    def alive(self) -> bool:
        """Whether its supervision makes progress, for a watchdog; a camera that fails is alive, too."""
        if self._process is not None:
            patience_s = _HEARTBEAT_PATIENCE_S if self._heartbeats else _OPENING_S
            return time.monotonic() - self._heard_s < patience_s + _SUPERVISION_S
        if self._retry is not None:
            return asyncio.get_running_loop().time() < self._retry.when() + _SUPERVISION_S
        return self.over or self._stopping

    def start(self) -> None:
        """Start the camera's process; its frame numbers go on after the counter."""
        self.captured = self.counter.captured
        self._retry = None
        self._opened, self._reason, self._heartbeats = None, None, False
        self._heard_s = self._delivered_s = time.monotonic()
        self._captured_ns = time.monotonic_ns()
        self._watched_before = self.watch
        self._freed.clear()
        self._gone.clear()
        self._set_state("opening")
        try:
            self._link, theirs = linked_pair()
            with theirs:
                inherited = (theirs.fileno(), self.slots.descriptor, self.counter.descriptor)
                self._process = subprocess.Popen(
                    [*PROCESS, *map(str, inherited)],
                    pass_fds=inherited,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal goes to the daemon alone
                )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:  # the machine is out of processes, descriptors or memory
            if self._process is not None:
                self._process.kill()
                self._process = None
            self._reason = f"its process cannot be started: {error.strerror}"
            self._died()
            return
        self._send(
            Settings(
                settings=dataclasses.asdict(self.settings),
                size=self._size,
                slots=self.slots.count,
                # Lanes may still hold slots that the process before this one filled.
                free=[slot for slot in range(self.slots.count) if slot not in self._in_use],
                next_frame=self.captured + 1,
                frozen=self._frozen,
                reference=None if self.reference is None else self.reference.text,
                next_picture=self._pictures + 1 if self.settings.chooses else None,
            )
        )
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, self._died)
        loop.add_reader(self._link.fileno(), self._hear)

    def free(self, slot: int) -> None:
        """Give a slot back to the camera; those of one turn of the event loop go in one message."""
        self._in_use.discard(slot)
        self._freed.append(slot)
        if self._free_timer is None:
            self._free_timer = asyncio.get_running_loop().call_soon(self._send_freed)

    def check_stalled(self) -> None:
        """Kill the process when it has been silent for too long; to be called every second or so."""
        if self._link is None or self._process is None or self.state == "ended":
            return
        now_s = time.monotonic()
        if now_s - self._heard_s > HEARTBEAT_S and self._link.wait(0):
            return  # it has spoken: this daemon was held up and has not heard it yet
        if self._has_no_room:
            self._delivered_s = now_s  # it waits for room
        stalled_after_s = self.settings.stalled_after_s
        reason = None
        if self.state == "opening" and now_s - self._delivered_s > _OPENING_S:
            reason = f"did not open within {_OPENING_S:g} s"
        elif self.state == "running" and stalled_after_s and now_s - self._delivered_s > stalled_after_s:
            reason = f"delivered nothing for {stalled_after_s:g} s"
        elif self._heartbeats and now_s - self._heard_s > _HEARTBEAT_PATIENCE_S:
            reason = f"its process gave no sign of life for {_HEARTBEAT_PATIENCE_S:g} s"
        if reason is not None:
            self._reason = self.error = reason
            self._set_state("stalled")
            self._kill()

    async def stop(self, patience_s: float) -> None:
        """End the process; every frame it captured has reached the sink when this returns."""
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None:
            return
        self._send(Stop())
        try:
            await asyncio.wait_for(self._gone.wait(), patience_s)
        except TimeoutError:
            _log.warning("camera %s does not stop and is killed", self.name)
            self._kill()
            await self._gone.wait()

    def close(self) -> None:
        """Give the descriptor of the slots back, after ``stop``; lanes may go on reading what they hold."""
        self.slots.close()

    # What the process says.

    def _hear(self, most: int = _MOST_PER_TURN) -> None:
        try:
            for _ in range(most):
                if self._link is None or (message := self._link.receive()) is None:
                    break
                self._heard_s = time.monotonic()
                self._take(message)
        except LinkClosed:
            self._hang_up()
            # Without its link it is useless, but most often it is ending by itself.
            if self._ending is None:
                self._ending = asyncio.get_running_loop().call_later(_CLOSING_S, self._kill)
        except (MalformedPacket, Violation) as error:
            self._condemn(f"its process broke the protocol: {error}")

    def _take(self, message: Message) -> None:
        match message:
            case Arrival() if self._opened is not None and self.state != "ended":
                self._take_frame(message)
            case Heartbeat():
                self._heartbeats = True
                self._send_freed()
            case Watch() if self._opened is not None and self.settings.chooses:
                self._take_watch(message)
            case Opened() if self._opened is None:
                self._take_opened(message)
            case Ended() if self._opened is not None and self.state != "ended":
                if self._reason is None:
                    self.error = None
                    self._set_state("ended")
            case Failed(error, frozen, wrong):
                self._reason = self.error = printable(error)
                self.wrong = wrong
                if frozen is not None:
                    self._frozen = frozen
                    self._set_state("stalled")
            case _:
                raise Violation(f"{type(message).__name__} while {self.state}")

    def _take_opened(self, opened: Opened) -> None:
        first, size = self.picture_size or opened.picture_size, opened.picture_size
        if size is not None and first is not None and size != first:
            self._condemn(
                f"delivers pictures of {size.width}×{size.height} pixels, no longer of "
                f"{first.width}×{first.height}, for which crop and calibration were made"
            )
            return
        self.picture_size = first
        self._opened = opened
        self.wrong = False
        self._opened_s = self._delivered_s = time.monotonic()
        self.error = None
        self._set_state("running")

    def _take_frame(self, arrival: Arrival) -> None:
        frame, slot = arrival.frame, arrival.slot
        if not self.captured < frame <= self.captured + _MOST_SKIPPED:
            raise Violation(f"frame {frame} after frame {self.captured}")
        if slot is not None and (slot >= self.slots.count or slot in self._in_use):
            raise Violation(f"frame {frame} in slot {slot}, which is not free")
        # One that chooses among its pictures tells of one when a later one has shown to be no better.
        since_ns = 0 if self.settings.chooses else self._captured_ns
        if not since_ns <= arrival.captured_ns <= time.monotonic_ns():
            raise Violation(f"frame {frame} captured in the future or before the frame before it")
        self._account_up_to(frame - 1, "the camera process skipped the frame's number")
        if arrival.trigger is not None and self._fired.pop(arrival.trigger, None) is None:
            raise Violation(f"frame {frame} for trigger {arrival.trigger}, which is not open")
        self.captured = frame
        self._captured_ns = arrival.captured_ns
        self._delivered_s = self._heard_s
        if slot is not None:
            self._in_use.add(slot)
        if arrival.error is not None:
            self.error = printable(arrival.error)
        elif slot is not None and self._reason is None:
            self.error = self._frozen = None
        self._sink.arrived(self.name, arrival)

    def _take_watch(self, watch: Watch) -> None:
        """Note what the camera has seen; pictures without a part are a sign of life, too."""
        if watch.pictures > self._pictures:
            self._pictures = watch.pictures
            self._delivered_s = self._heard_s
        before = self._watched_before
        if before is not None:
            counts = {
                name: getattr(before, name) + getattr(watch, name)
                for name in ("empty", "parts", "missed", "triggers", "doubles")
            }
            watch = watch._replace(**counts, speed=watch.speed or before.speed)
        self.watch = watch
        troubled, self._troubled = self._troubled, watch.trouble is not None
        if watch.trouble is not None:
            self.error = printable(watch.trouble)
        elif troubled and self._reason is None:
            self.error = None
        if troubled != self._troubled:
            self._sink.camera_changed(self.name)

    def trigger(self, at_ns: int, part: str | None) -> None:
        """Have the picture judged that is nearest to a time; one verdict follows, whatever happens.

        Args:
            at_ns: ``time.monotonic_ns()`` when the trigger came.
            part: name of the part that it announces.

        Raises:
            InputError: the camera takes no triggers from here, or will take no more pictures.
        """
        wanted = self.settings.trigger
        if wanted is None or wanted.by != "software":
            found = "none" if wanted is None else f"by: {wanted.by}"
            raise InputError(f"cameras.{self.name}.trigger: found {found}, expected by: software")
        if self.over or self._stopping:
            raise InputError(f"cameras.{self.name}: takes no more pictures: it is {self.state}")
        self._last_trigger = self._last_trigger % 0xFFFF_FFFF + 1
        fire = Fire(self._last_trigger, at_ns, None if part is None else sendable(part))
        self._fired[fire.number] = fire
        if self._send(fire):
            return
        if self._process is None:
            self._give_up_triggers(f"a trigger while the camera is {self.state}")
        elif self._link is not None:
            del self._fired[fire.number]
            raise InputError(f"cameras.{self.name}: its process does not take triggers now; try again")

    def _give_up_triggers(self, error: str) -> None:
        """Report triggers that no process will answer any more."""
        for fire in [fire for fire in self._fired.values() for _ in range(self.settings.parts)]:
            self.captured += 1
            unseen = Arrival(self.captured, None, fire.at_ns, fire.part, None, error, trigger=fire.number)
            self.counter.captured = self.captured
            self._sink.arrived(self.name, unseen)
        self._fired.clear()

    def _account_up_to(self, frame: int, error: str) -> None:
        """Report frames that were captured and never announced."""
        while self.captured < frame:
            self.captured += 1
            unseen = Arrival(self.captured, None, time.monotonic_ns(), None, None, error)
            self._sink.arrived(self.name, unseen)

    # What it is told.

    def _send(self, message: Message) -> bool:
        if self._link is None:
            return False
        try:
            return self._link.send(message)
        except LinkClosed:
            return False  # its end is noticed and acted on

    def _send_freed(self) -> None:
        """Tell of the freed slots; those that a process cannot take now wait for its next heartbeat."""
        self._free_timer = None
        if self._freed and self._send(Free(tuple(self._freed))):
            self._freed.clear()

    # Its end.

    def _condemn(self, reason: str) -> None:
        """Stop listening to a process, and end it."""
        self._reason = self.error = reason
        self._hang_up()
        self._kill()

    def _hang_up(self) -> None:
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._link.close()
            self._link = None

    def _kill(self) -> None:
        """Kill the process; its death is noticed, or assumed when a driver delays it."""
        if self._ending is not None:
            self._ending.cancel()
        if self._process is not None:
            self._process.kill()
            self._ending = asyncio.get_running_loop().call_later(_DYING_S, self._died)

    def _died(self) -> None:
        self._hear(_MOST_UNANNOUNCED)  # its last words
        self._hang_up()
        status = None
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            status = self._process.poll()
            self._process = None
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        over = self.state == "ended" or self._stopping
        reason = self._reason or _obituary(status)
        self._account_up_to(self._counted(), reason)
        if self._opened is not None and not over:
            self._account_up_to(self.captured + 1, reason)
            self._pictures += 1  # the one amid which it died
        self._give_up_triggers(f"a trigger without a picture: {reason}")
        self.counter.captured = self.captured
        self._gone.set()
        if over:
            return
        if self._opened is not None and time.monotonic() - self._opened_s >= _RAN_WELL_S:
            self._retry_s = _FIRST_RETRY_S
        self.error = reason
        self._set_state("failed")
        if self.over:
            return
        # With jitter, so that cameras that failed together do not all come back at the same instant.
        delay_s = self._retry_s * random.uniform(0.75, 1.25)
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S)
        self._retry = asyncio.get_running_loop().call_later(delay_s, self.start)

    def _counted(self) -> int:
        """Number of the last frame that the process counted, unless that number is impossible."""
        counted = self.counter.captured
        if counted - self.captured > _MOST_UNANNOUNCED:
            _log.error("camera %s: its process left an impossible count of frames: %d", self.name, counted)
            return self.captured
        return counted

    def _set_state(self, state: CameraState) -> None:
        self.state = state
        self.tried |= state != "opening"
        self._sink.camera_changed(self.name)


def _obituary(status: int | None) -> str:
    if status is None:
        return "its process cannot be killed: its driver hangs in the kernel"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"its process was killed by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


def refuse_failed(cameras: Iterable[DaemonCamera]) -> None:
    """Refuse to go on when a camera did not open.

    Raises:
        InputError: names the first such camera, and why.
    """
    for camera in cameras:
        if camera.state == "failed":
            raise InputError(f"cameras.{camera.name}: {camera.error}")
