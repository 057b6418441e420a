"""The daemon's side of a camera: starts its process, hears it, notices its death and starts it again."""

import asyncio
import contextlib
import dataclasses
import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from daemon import camera_link
from daemon.camera_link import CameraLink, LinkClosed, linked_pair
from daemon.cameras import CameraSettings
from daemon.slots import FrameSlots
from engine_runtime.errors import InputError
from engine_runtime.frames import Roi, Size
from verdicts.message import CameraState

_OPENING_S = 20.0  # an RTSP camera that restarts takes seconds; a driver that hangs takes for ever
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_log = logging.getLogger("inspectd")


class Arrival(NamedTuple):
    """A captured frame as the camera's process announced it."""

    frame: int
    slot: int | None
    """None: its pixels were not stored, because there was no room or because of ``error``."""
    captured_ns: int
    part: str | None
    region: Roi | None
    """What part of the camera's picture the slot shows."""
    error: str | None


class FrameSink(Protocol):
    """Where a camera's frames go; called in the daemon's thread."""

    def arrived(self, camera: str, arrival: Arrival) -> None:
        """A frame was captured."""

    def camera_changed(self, camera: str) -> None:
        """The camera's state is another one."""


class DaemonCamera:
    """One configured camera over all the processes it lives through.

    Frame numbers count from 1 without gaps. When a running camera fails, the number after its last frame is
    spent on telling so: the sink gets it as a frame that was not stored.
    """

    def __init__(
        self, name: str, settings: CameraSettings, size: Size, *, judged_at_once: int, sink: FrameSink
    ) -> None:
        """Allocate the camera's slots.

        Args:
            name: the camera's name in the config.
            settings: its entry there.
            size: the engine's input size.
            judged_at_once: frames that all lanes together may hold.
            sink: where the frames go.
        """
        self.name = name
        self.settings = settings
        self.state: CameraState = "opening"
        self.error: str | None = None
        # One slot more than can be in use, so that there is always one to capture into.
        self.slots = FrameSlots.create(settings.waiting + judged_at_once + 1, size)
        self.captured = 0
        self._size = size
        self._sink = sink
        self._process: subprocess.Popen[bytes] | None = None
        self._link: CameraLink | None = None
        self._in_use: set[int] = set()
        self._live = False
        self._heard_s = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._stopping = False

    @property
    def must_make_room(self) -> bool:
        """Whether the camera goes on capturing and has no slot left to capture into."""
        goes_on = self._live or self.settings.fps is not None
        return goes_on and len(self._in_use) == self.slots.count

    def start(self) -> None:
        """Start the camera's process."""
        link, theirs = linked_pair()
        with theirs:
            inherited = (theirs.fileno(), self.slots.descriptor)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "daemon.camera_process", *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal goes to the daemon alone
            )
        self._link = link
        self._heard_s = time.monotonic()
        self._set_state("opening")
        self._send(
            camera_link.SETTINGS,
            settings=dataclasses.asdict(self.settings),
            size=self._size,
            slots=self.slots.count,
            # Lanes may still hold slots that the process before this one filled.
            free=[slot for slot in range(self.slots.count) if slot not in self._in_use],
            next_frame=self.captured + 1,
        )
        asyncio.get_running_loop().add_reader(link.fileno(), self._hear)

    def free(self, slot: int) -> None:
        """Give a slot back to the camera."""
        self._in_use.discard(slot)
        self._send(camera_link.FREE, slots=[slot])

    def check_stalled(self) -> None:
        """Kill the process when it has been silent for too long; its death is then noticed as any other."""
        patience_s = _OPENING_S if self.state == "opening" else self.settings.stalled_after_s
        if self._process is None or self._link is None or patience_s is None:
            return
        if time.monotonic() - self._heard_s > patience_s:
            self.error = f"delivered nothing for {patience_s:g} s"
            self._set_state("stalled")
            self._process.kill()

    async def stop(self, patience_s: float) -> None:
        """End the process; every frame it captured has reached the sink when this returns."""
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        if self._process is None or self._link is None:
            return
        self._send(camera_link.STOP)
        try:
            await asyncio.wait_for(self._gone.wait(), patience_s)
        except TimeoutError:
            _log.warning("camera %s does not stop and is killed", self.name)
            self._process.kill()
            await self._gone.wait()

    def _send(self, kind: str, **content: Any) -> None:
        if self._link is not None:
            with contextlib.suppress(LinkClosed):  # the end-of-file that follows is acted on
                self._link.send(kind, **content)

    def _hear(self) -> None:
        assert self._link is not None
        try:
            while (message := self._link.receive(timeout_s=0)) is not None:
                self._heard_s = time.monotonic()
                self._take(message)
        except LinkClosed:
            self._died()

    def _take(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case camera_link.OPENED:
                self._live = message["live"]
                self._retry_s = _FIRST_RETRY_S
                self.error = None
                self._set_state("running")
            case camera_link.FRAME:
                self._take_frame(message)
            case camera_link.ENDED:
                self._set_state("ended")
            case camera_link.FAILED:
                self.error = message["error"]

    def _take_frame(self, message: dict[str, Any]) -> None:
        self._account_up_to(message["frame"] - 1, "the camera process skipped the frame's number")
        self.captured = message["frame"]
        slot, region = message["slot"], message["region"]
        if slot is not None:
            self._in_use.add(slot)
        self._sink.arrived(
            self.name,
            Arrival(
                self.captured,
                slot,
                message["captured_ns"],
                message["part"],
                None if region is None else Roi(*region),
                message["error"],
            ),
        )

    def _account_up_to(self, frame: int, error: str) -> None:
        """Report frames that were captured and never announced."""
        while self.captured < frame:
            self.captured += 1
            unseen = Arrival(self.captured, None, time.monotonic_ns(), None, None, error)
            self._sink.arrived(self.name, unseen)

    def _died(self) -> None:
        assert self._link is not None and self._process is not None
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._link.close()
        self._link = None
        self._process.kill()  # it closed its link, so it is of no more use even if it should still run
        status = self._process.wait()
        self._process = None
        ran = self.state in {"running", "stalled"}
        if self.state != "ended" and not self._stopping and self.error is None:
            self.error = f"its process died with status {status}"
        self._account_up_to(
            self.slots.captured, self.error or "its process died before it could hand it over"
        )
        self._gone.set()
        if self.state == "ended" or self._stopping:
            return
        if ran:
            self._account_up_to(self.captured + 1, self.error or "")
        self._set_state("failed")
        # With jitter, so that cameras that failed together do not all come back at the same instant.
        delay_s = self._retry_s * random.uniform(0.75, 1.25)
        self._retry_s = min(self._retry_s * 2, _LONGEST_RETRY_S)
        self._retry = asyncio.get_running_loop().call_later(delay_s, self.start)

    def _set_state(self, state: CameraState) -> None:
        self.state = state
        self._sink.camera_changed(self.name)


def refuse_failed(cameras: Iterable[DaemonCamera]) -> None:
    """Make an input error of a camera that did not open.

    Raises:
        InputError: names the first such camera, and why.
    """
    for camera in cameras:
        if camera.state == "failed":
            raise InputError(f"cameras.{camera.name}: {camera.error}")
