"""Where frames come in: each is entered in the ledger, and waits for a lane or is a fault at once."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from daemon.capture.group import CameraGroup, CameraPlan
from daemon.capture.supervisor import Arrival
from daemon.delivery.verdict_batch import VerdictBatch
from daemon.judging.ledger import CapturedFrame, FrameKey, Ledger
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames

_log = logging.getLogger("inspectd")


class Intake:
    """Takes what the cameras capture, as their ``FrameSink``, and sees to the frames' deadlines.

    Attributes:
        cameras: of the line.
        product: what is judged now; a frame keeps the one it was captured for.
        deadline_ms: from the capture to the verdict, of the frames that come.
        on_camera_change: called when a camera's state has changed.
    """

    def __init__(
        self,
        plan: CameraPlan,
        product: Product,
        deadline_ms: float,
        *,
        boot: str,
        journal: Path | None,
        ledger: Ledger,
        waiting: WaitingFrames,
        verdicts: VerdictBatch,
    ) -> None:
        """Make the cameras; they are started by whoever runs the line.

        Args:
            plan: which cameras.
            product: what is judged first.
            deadline_ms: of each frame.
            boot: hexadecimal digits that name this start of the daemon.
            journal: beside which captured frames are counted; None: only in memory.
            ledger: where each frame is open until its verdict.
            waiting: from where lanes take what they judge.
            verdicts: of frames that no lane will judge.

        Raises:
            InputError: as ``CameraGroup``.
        """
        self.product = product
        self.deadline_ms = deadline_ms
        self.on_camera_change: Callable[[], object] = lambda: None
        self._ledger = ledger
        self._waiting = waiting
        self._verdicts = verdicts
        self._loop = asyncio.get_running_loop()
        self._waking = False
        self._told: dict[str, str | None] = {}  # by camera: the trouble with its last frame
        self._deadline_timer: asyncio.TimerHandle | None = None
        self.cameras = CameraGroup(plan, boot=boot, journal=journal, sink=self)

    def arrived(self, camera: str, arrival: Arrival) -> None:
        """Enter a captured frame; offer it to the lanes, or close it when it has no pixels."""
        source = self.cameras[camera]
        captured = CapturedFrame(
            FrameKey(camera, arrival.frame),
            self.product,
            source,
            arrival.slot,
            arrival.captured_ns,
            arrival.captured_ns + int(self.deadline_ms * 1e6),
            arrival.part,
            arrival.region,
            arrival.placed,
            arrival.lost,
        )
        self._ledger.open(captured)
        if self._deadline_timer is None or captured.deadline_ns / 1e9 < self._deadline_timer.when():
            self._watch_deadlines()  # also where a reload has made deadlines shorter
        told, self._told[camera] = self._told.get(camera), arrival.error
        if arrival.error is not None:
            if arrival.error != told:  # a lens cap would fill the log
                _log.warning("camera %s: frame %d: %s", camera, arrival.frame, arrival.error)
            self._verdicts.fault(captured.key, "camera")
        elif arrival.slot is None:
            self._verdicts.fault(captured.key, "overload")
        else:
            if not self._waking:
                self._waking = True
                self._loop.call_soon(self._wake_lanes)
            self._waiting.put(captured)
            if source.must_make_room:
                oldest = self._waiting.withdraw_oldest(camera)
                if oldest is not None:
                    self._verdicts.fault(oldest.key, "overload")
                    oldest.free()

    def _wake_lanes(self) -> None:
        self._waking = False
        self._waiting.wake()

    def _watch_deadlines(self) -> None:
        for key in self._ledger.overdue(time.monotonic_ns()):
            captured = self._verdicts.fault(key, "deadline")
            if captured is not None and self._waiting.withdraw(key):
                captured.free()  # a lane gives the others back when it is done with them
        deadline_ns = self._ledger.next_deadline_ns()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = (
            None if deadline_ns is None else self._loop.call_at(deadline_ns / 1e9, self._watch_deadlines)
        )

    def camera_changed(self, camera: str) -> None:
        """Note a camera's new state."""
        changed = self.cameras[camera]
        trouble = f": {changed.error}" if changed.error else ""
        level = logging.WARNING if trouble else logging.INFO
        _log.log(level, "camera %s: %s%s", camera, changed.state, trouble)
        self.on_camera_change()
