"""The running line: cameras feed the ledger, lanes empty it, and every closed frame is published."""

import asyncio
import logging
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sdnotify
from numpy.typing import NDArray

from calibration.calibration_file import Calibration
from daemon.archive import Archive
from daemon.camera import Arrival, DaemonCamera, refuse_failed
from daemon.config import Config
from daemon.lane import Judged, Lane, NotJudged
from daemon.ledger import CapturedFrame, FrameKey, Ledger
from daemon.publisher import Publisher
from daemon.waiting import WaitingFrames
from engine_runtime.engine import Engine
from engine_runtime.heatmap import MapGeometry
from verdicts.message import (
    HEALTH_INTERVAL_S,
    CameraHealth,
    Decision,
    Health,
    Latency,
    LineState,
    Peak,
    Reason,
    Verdict,
    encode,
)

_CAMERA_STOP_S = 2.0
_LONGEST_DRAIN_S = 5.0
_log = logging.getLogger("inspectd")


class Line:
    """One configured line from its first frame to its last verdict.

    Everything here happens in the thread of the event loop; lanes hand their results over to it. So the
    ledger needs no lock, and what happens first is what counts.
    """

    def __init__(
        self,
        config: Config,
        calibration: Calibration,
        engines: Sequence[Engine],
        reopen: Callable[[], Engine],
        publisher: Publisher,
    ) -> None:
        """Allocate everything the line needs; ``run`` starts it.

        Args:
            config: the line's config.
            calibration: made for the engine.
            engines: the same engine, opened once for each lane.
            reopen: opens it once more.
            publisher: bound.

        Raises:
            InputError: the archive's folder cannot be made.
        """
        manifest = engines[0].manifest
        self._config = config
        self._publisher = publisher
        self._threshold = calibration.threshold
        self._model = manifest.model
        self._engine_name = f"{manifest.model} {manifest.payload_sha256[:12]}"
        self._geometry = MapGeometry.of(manifest)
        self._boot = secrets.token_hex(8)
        self._started_s = time.monotonic()
        self._deadline_ns = int(config.deadline_ms * 1e6)
        self._ledger = Ledger()
        self._waiting = WaitingFrames()
        self._seq = 0
        self._decisions: Counter[Decision] = Counter()
        self._faults: Counter[str] = Counter()
        self._state: LineState = "starting"
        self._given_up: str | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._archive = None
        if config.archive is not None:
            self._archive = Archive(
                config.archive.folder,
                max_mb=config.archive.max_mb,
                geometry=self._geometry,
                threshold=self._threshold,
            )
        max_batch = min(config.max_batch or manifest.max_batch, manifest.max_batch)
        self._cameras = {
            name: DaemonCamera(
                name, settings, manifest.input_size, judged_at_once=max_batch * len(engines), sink=self
            )
            for name, settings in config.cameras.items()
        }
        self._lanes = [
            Lane(
                engine,
                reopen,
                quantiles=calibration.quantiles_array(),
                max_batch=max_batch,
                waiting=self._waiting,
                slots={name: camera.slots for name, camera in self._cameras.items()},
                deliver=self._deliver,
            )
            for engine in engines
        ]

    async def run(self) -> int:
        """Inspect until SIGTERM or SIGINT, or until every camera has ended.

        Returns:
            The exit code: 0, or 1 when the line had to be given up.

        Raises:
            InputError: a camera did not open at the start.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._broken)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop_asked.set)
        service_manager = sdnotify.SystemdNotifier()
        for lane in self._lanes:
            lane.start()
        for camera in self._cameras.values():
            camera.start()
        health = asyncio.create_task(self._publish_health())
        try:
            await self._until(lambda: all(camera.state != "opening" for camera in self._cameras.values()))
            refuse_failed(self._cameras.values())
            self._state = "running"
            if not self._stop_asked.is_set():
                _log.info("%s: running, verdicts on %s", self._config.line, self._config.publish)
                service_manager.notify("READY=1")
            await self._until(
                lambda: (
                    self._given_up is not None
                    or all(camera.state == "ended" for camera in self._cameras.values())
                )
            )
        finally:
            self._state = "stopping"
            service_manager.notify("STOPPING=1")
            await self._drain()
            health.cancel()
            self._send_health()
            self._publisher.close()
        _log.info("%s: stopped after %d verdicts %s", self._config.line, self._seq, dict(self._decisions))
        if self._given_up is not None:
            _log.error("%s: given up: %s", self._config.line, self._given_up)
            return 1
        return 0

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the cameras or lanes, or for the wish to stop."""
        stop = asyncio.create_task(self._stop_asked.wait())
        while not condition() and not stop.done():
            self._changed.clear()
            change = asyncio.create_task(self._changed.wait())
            await asyncio.wait((stop, change), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            for camera in self._cameras.values():
                camera.check_stalled()
        stop.cancel()

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Give the line up after an error of our own: a frame may be without its verdict because of it."""
        self._given_up = f"internal error: {context.get('exception') or context['message']}"
        self._changed.set()
        loop.default_exception_handler(context)

    async def _drain(self) -> None:
        """Stop the cameras and see every frame they captured to its verdict."""
        await asyncio.gather(*(camera.stop(_CAMERA_STOP_S) for camera in self._cameras.values()))
        if len(self._ledger):
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), _LONGEST_DRAIN_S)
            except TimeoutError:
                for key in self._ledger.open_keys():
                    self._close_as_fault(key, "shutdown")
        self._waiting.end()
        for lane in self._lanes:
            if lane.is_alive():
                # A hung device must not keep the service from stopping: its frames have their verdicts.
                await asyncio.to_thread(lane.join, _LONGEST_DRAIN_S)
        if self._archive is not None:
            await asyncio.to_thread(self._archive.close)

    # The cameras' frames, as daemon.camera.FrameSink.

    def arrived(self, camera: str, arrival: Arrival) -> None:
        """Enter a captured frame; offer it to the lanes, or close it when its pixels are not there."""
        captured = CapturedFrame(
            FrameKey(camera, arrival.frame),
            arrival.slot,
            arrival.captured_ns,
            arrival.captured_ns + self._deadline_ns,
            arrival.part,
            arrival.region,
        )
        self._ledger.open(captured)
        if self._deadline_timer is None:
            self._watch_deadlines()
        if arrival.error is not None:
            _log.warning("camera %s: frame %d: %s", camera, arrival.frame, arrival.error)
            self._close_as_fault(captured.key, "camera")
        elif arrival.slot is None:
            self._close_as_fault(captured.key, "overload")
        else:
            self._waiting.put(captured)
            if self._cameras[camera].must_make_room:
                oldest = self._waiting.withdraw_oldest(camera)
                if oldest is not None:
                    self._close_as_fault(oldest.key, "overload")
                    self._free(oldest)

    def camera_changed(self, camera: str) -> None:
        """Note a camera's new state and tell it at once: it may last for less than a second."""
        changed = self._cameras[camera]
        trouble = f": {changed.error}" if changed.error else ""
        level = logging.WARNING if trouble else logging.INFO
        _log.log(level, "camera %s: %s%s", camera, changed.state, trouble)
        self._changed.set()
        if self._state == "running":
            self._send_health()

    def _watch_deadlines(self) -> None:
        for key in self._ledger.overdue(time.monotonic_ns()):
            captured = self._close_as_fault(key, "deadline")
            if captured is not None and self._waiting.withdraw(key):
                self._free(captured)  # a lane gives the others back when it is done with them
        deadline_ns = self._ledger.next_deadline_ns()
        self._deadline_timer = (
            None if deadline_ns is None else self._loop.call_at(deadline_ns / 1e9, self._watch_deadlines)
        )

    # The lanes' results.

    def _deliver(self, result: Judged | NotJudged) -> None:
        """Bring a result from a lane's thread into the loop's."""
        self._loop.call_soon_threadsafe(self._take, result)

    def _take(self, result: Judged | NotJudged) -> None:
        if isinstance(result, Judged):
            self._take_judged(result)
        else:
            for captured in result.frames:
                self._close_as_fault(captured.key, "engine")
            if result.given_up:
                self._given_up = result.error
        for captured in result.frames:
            self._free(captured)
        self._changed.set()

    def _take_judged(self, judged: Judged) -> None:
        for row, captured in enumerate(judged.frames):
            if self._ledger.close(captured.key) is None:
                continue  # its deadline was faster
            score, anomaly_map = float(judged.scores[row]), judged.anomaly_maps[row]
            # A verdict that comes too late for the gate is no pass, even if the timer has not fired yet.
            late = time.monotonic_ns() > captured.deadline_ns
            decision: Decision = "fault" if late else "reject" if score > self._threshold else "pass"
            archive = None
            if decision == "reject" and self._archive is not None and captured.slot is not None:
                pixels = self._cameras[captured.key.camera].slots[captured.slot]
                archive = self._archive.keep(self._picture_name(captured), pixels, anomaly_map)
            self._publish(
                captured,
                decision,
                "deadline" if late else None,
                score=score,
                peak=self._peak(captured, anomaly_map),
                wait_ms=(judged.started_ns - captured.captured_ns) / 1e6,
                infer_ms=(judged.finished_ns - judged.started_ns) / 1e6,
                archive=None if archive is None else str(archive),
            )

    def _close_as_fault(self, key: FrameKey, reason: Reason) -> CapturedFrame | None:
        captured = self._ledger.close(key)
        if captured is not None:
            self._publish(captured, "fault", reason)
        return captured

    def _free(self, captured: CapturedFrame) -> None:
        if captured.slot is not None:
            self._cameras[captured.key.camera].free(captured.slot)

    def _picture_name(self, captured: CapturedFrame) -> str:
        camera, frame = captured.key
        return f"{_wall_clock(captured.captured_ns):%Y%m%dT%H%M%S}-{camera}-{frame:08d}"

    def _peak(self, captured: CapturedFrame, anomaly_map: NDArray[np.float32]) -> Peak | None:
        """Find the peak of an anomaly map in the camera's picture."""
        region, size = captured.region, self._geometry.frame
        if region is None:
            return None
        x, y = self._geometry.peak(anomaly_map)
        return Peak(
            int(region.x + x * region.width / size.width), int(region.y + y * region.height / size.height)
        )

    # What goes out.

    def _publish(
        self,
        captured: CapturedFrame,
        decision: Decision,
        reason: Reason | None,
        *,
        score: float | None = None,
        peak: Peak | None = None,
        wait_ms: float | None = None,
        infer_ms: float | None = None,
        archive: str | None = None,
    ) -> None:
        self._seq += 1
        self._decisions[decision] += 1
        self._faults[captured.key.camera] += decision == "fault"
        total_ms = (time.monotonic_ns() - captured.captured_ns) / 1e6
        verdict = Verdict(
            line=self._config.line,
            camera=captured.key.camera,
            frame=captured.key.frame,
            part=captured.part,
            boot=self._boot,
            seq=self._seq,
            decision=decision,
            reason=reason,
            score=score,
            threshold=self._threshold,
            peak=peak,
            captured_at=_iso(_wall_clock(captured.captured_ns)),
            latency_ms=Latency(wait=_rounded(wait_ms), infer=_rounded(infer_ms), total=round(total_ms, 3)),
            model=self._model,
            archive=archive,
        )
        self._publisher.send(*encode(verdict))
        if not len(self._ledger):
            self._idle.set()

    async def _publish_health(self) -> None:
        due_s = self._loop.time()
        while True:
            self._send_health()
            due_s += HEALTH_INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))

    def _send_health(self) -> None:
        degraded = any(camera.state not in {"running", "ended"} for camera in self._cameras.values())
        state: LineState = "degraded" if self._state == "running" and degraded else self._state
        health = Health(
            line=self._config.line,
            boot=self._boot,
            seq=self._seq,
            state=state,
            error=self._given_up,
            cameras={
                name: CameraHealth(camera.state, camera.captured, self._faults[name], camera.error)
                for name, camera in self._cameras.items()
            },
            product=None,
            engine=self._engine_name,
            journal=None,
            subscribers={},
            dropped_messages=0,
            verdicts={"pass": 0, "reject": 0, "fault": 0, **self._decisions},
            waiting=len(self._ledger),
            uptime_s=round(time.monotonic() - self._started_s, 3),
            sent_at=_iso(datetime.now(UTC)),
        )
        self._publisher.send(*encode(health))


def _wall_clock(monotonic_ns: int) -> datetime:
    """Turn a monotonic time into the calendar's; the two clocks are compared now, as either may be set."""
    return datetime.fromtimestamp(time.time() - (time.monotonic_ns() - monotonic_ns) / 1e9, UTC)


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
