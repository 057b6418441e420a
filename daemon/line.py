"""The running line: cameras feed the ledger, lanes empty it, and every closed frame gets its verdict."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from daemon.capture.group import CameraGroup
from daemon.capture.supervisor import Arrival
from daemon.delivery.archive import Archive
from daemon.delivery.journaled_publisher import Outlet
from daemon.delivery.verdict_batch import Outbox, Scored, wall_clock
from daemon.host.access import Access, CurveAccess
from daemon.host.sd_notify import Service
from daemon.journal.journal import JournalFailed
from daemon.journal.stamps import iso
from daemon.journal.writer import JournalWriter
from daemon.judging.lane import Judged, NotJudged
from daemon.judging.lanes import Lanes
from daemon.judging.ledger import CapturedFrame, FrameKey, Ledger
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from daemon.load import Setup, clients_of, load_setup
from foundation.errors import InputError
from pictures.heatmap import MapGeometry
from verdicts.message import (
    HEALTH_INTERVAL_S,
    CameraHealth,
    Decision,
    Health,
    LineState,
    Peak,
    Reason,
)

if TYPE_CHECKING:
    from daemon.control.server import Control

T = TypeVar("T")

_LONGEST_DRAIN_S = 5.0
_log = logging.getLogger("inspectd")


class Line:
    """One configured line from its first frame to its last verdict.

    Everything here happens in the thread of the event loop; lanes hand their results over to it. So the
    ledger needs no lock, and what happens first is what counts.
    """

    def __init__(
        self,
        path: Path,
        setup: Setup,
        product: Product,
        *,
        boot: str,
        outlet: Outlet,
        journal: JournalWriter | None,
        control: "Control | None",
        access: Access,
    ) -> None:
        """Allocate everything the line needs; ``run`` starts it.

        Args:
            path: the config file, read again at a reload.
            setup: what was loaded from it.
            product: the one of its products that is judged first.
            boot: hexadecimal digits that name this start of the daemon.
            outlet: where verdicts go.
            journal: where events are noted; None without one.
            control: whose subscribers health tells of; None without one.
            access: who may connect.

        Raises:
            InputError: the archive's folder cannot be made, or there is no memory for the cameras' frames.
        """
        self._path = path
        self._setup = setup
        self._product = product
        self._boot = boot
        self._outlet = outlet
        self._journal = journal
        self._control = control
        self._access = access
        self._service = Service()
        self._started_s = time.monotonic()
        self._ledger = Ledger()
        self._waiting = WaitingFrames()
        self._outbox = Outbox(setup.config.line, boot, outlet)
        self._waking = False
        self._told: dict[str, str | None] = {}  # by camera, the trouble with its last frame
        self._state: LineState = "starting"
        self._given_up: str | None = None
        self.complete = True
        """Whether every captured frame gets its verdict; after an error of our own nobody knows."""
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._changing_over = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1)  # not the loop's own, for whose work the loop waits at its end
        self._loading: Future[Any] | None = None
        self._archive = self._open_archive(setup)
        self._cameras = CameraGroup(setup, boot=boot, sink=self)
        self._lanes = Lanes(setup.opened, waiting=self._waiting, deliver=self._deliver)

    @property
    def hung(self) -> bool:
        """Whether a thread hangs in a runtime, or still loads, so that only force ends the process now."""
        return self._lanes.hung or (self._loading is not None and not self._loading.done())

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
        self._loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        self._lanes.start()
        self._cameras.start()
        pulse = asyncio.create_task(self._pulse())
        pulse.add_done_callback(self._pulse_ended)
        try:
            await self._until(lambda: self._cameras.tried, self._changed)
            self._cameras.refuse_wrong()
            self._state = "running"
            if not self._stop_asked.is_set():
                _log.info("%s: running, verdicts on %s", self._setup.config.line, self._setup.config.publish)
                if self._journal is None:
                    _log.warning("no journal is configured: verdicts can be neither replayed nor audited")
                self._service.ready()
            # While the line changes over, cameras end to be replaced.
            await self._until(
                lambda: (
                    self._given_up is not None or (self._cameras.ended and not self._changing_over.locked())
                ),
                self._changed,
            )
            # Nobody waits for a line that ends by itself: only deadlines limit its last frames.
            await self._until(lambda: self._given_up is not None or not len(self._ledger), self._idle)
        finally:
            self._service.stopping()
            self._state = "stopping"
            await self._drain()
            pulse.cancel()
            self._state = "stopping" if self._given_up is None else "failed"
            self.send_health()
        counts = dict(self._outlet.decisions)
        _log.info("%s: stopped after %d verdicts %s", self._setup.config.line, self._outbox.seq, counts)
        if self._given_up is not None:
            _log.error("%s: given up: %s", self._setup.config.line, self._given_up)
            return 1
        return 0

    async def _until(self, condition: Callable[[], bool], changed: asyncio.Event) -> None:
        """Wait for a condition that may hold when an event is set, or for the wish to stop."""
        stop = asyncio.create_task(self._stop_asked.wait())
        while not condition() and not stop.done():
            changed.clear()
            change = asyncio.create_task(changed.wait())
            await asyncio.wait((stop, change), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
        stop.cancel()

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Give the line up after an error of our own: a frame may be without its verdict because of it."""
        self.complete = False
        self._give_up(f"internal error: {context.get('exception') or context['message']}")
        loop.default_exception_handler(context)

    def _give_up(self, why: str) -> None:
        self._given_up = self._given_up or why
        self._changed.set()

    async def _drain(self) -> None:
        """Stop the cameras and see every frame they captured to its verdict."""
        await self._cameras.stop()
        if len(self._ledger):
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), _LONGEST_DRAIN_S)
            except TimeoutError:
                for key in self._ledger.open_keys():
                    self._close_as_fault(key, "shutdown")
        self._flush()
        self._waiting.end()
        # A hung device must not keep the service from stopping: its frames have their verdicts.
        await asyncio.to_thread(self._lanes.join, _LONGEST_DRAIN_S)
        if self._archive is not None:
            await asyncio.to_thread(self._archive.close)

    # The cameras' frames, as daemon.capture.supervisor.FrameSink.

    def arrived(self, camera: str, arrival: Arrival) -> None:
        """Enter a captured frame; offer it to the lanes, or close it when its pixels are not there."""
        source = self._cameras[camera]
        captured = CapturedFrame(
            FrameKey(camera, arrival.frame),
            self._product,
            source,
            arrival.slot,
            arrival.captured_ns,
            arrival.captured_ns + int(self._setup.config.deadline_ms * 1e6),
            arrival.part,
            arrival.region,
        )
        self._ledger.open(captured)
        if self._deadline_timer is None or captured.deadline_ns / 1e9 < self._deadline_timer.when():
            self._watch_deadlines()  # also where a reload has made deadlines shorter
        told, self._told[camera] = self._told.get(camera), arrival.error
        if arrival.error is not None:
            if arrival.error != told:  # a lens cap would fill the log
                _log.warning("camera %s: frame %d: %s", camera, arrival.frame, arrival.error)
            self._close_as_fault(captured.key, "camera")
        elif arrival.slot is None:
            self._close_as_fault(captured.key, "overload")
        else:
            if not self._waking:
                self._waking = True
                self._loop.call_soon(self._wake_lanes)
            self._waiting.put(captured)
            if source.must_make_room:
                oldest = self._waiting.withdraw_oldest(camera)
                if oldest is not None:
                    self._close_as_fault(oldest.key, "overload")
                    oldest.free()

    def _wake_lanes(self) -> None:
        self._waking = False
        self._waiting.wake()

    def camera_changed(self, camera: str) -> None:
        """Note a camera's new state and tell it at once: it may last for less than a second."""
        changed = self._cameras[camera]
        trouble = f": {changed.error}" if changed.error else ""
        level = logging.WARNING if trouble else logging.INFO
        _log.log(level, "camera %s: %s%s", camera, changed.state, trouble)
        self._changed.set()
        if self._state == "running":
            self.send_health()

    def _watch_deadlines(self) -> None:
        for key in self._ledger.overdue(time.monotonic_ns()):
            captured = self._close_as_fault(key, "deadline")
            if captured is not None and self._waiting.withdraw(key):
                captured.free()  # a lane gives the others back when it is done with them
        deadline_ns = self._ledger.next_deadline_ns()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = (
            None if deadline_ns is None else self._loop.call_at(deadline_ns / 1e9, self._watch_deadlines)
        )

    # The lanes' results.

    def _deliver(self, result: Judged | NotJudged) -> None:
        """Bring a result from a lane's thread into the loop's."""
        self._loop.call_soon_threadsafe(self._take, result)

    def _take(self, result: Judged | NotJudged) -> None:
        if result.lane not in self._lanes:
            return  # it hung and was replaced: its frames were closed and freed then
        if isinstance(result, Judged):
            self._take_judged(result)
        else:
            for captured in result.frames:
                self._close_as_fault(captured.key, "engine")
            if result.lane.given_up:
                self._give_up(f"{result.error}, {result.lane.failures} failures in a row")
            self._changed.set()
        for captured in result.frames:
            captured.free()

    def _take_judged(self, judged: Judged) -> None:
        for row, captured in enumerate(judged.frames):
            if self._ledger.close(captured.key) is None:
                continue  # its deadline was faster
            score, anomaly_map = float(judged.scores[row]), judged.anomaly_maps[row]
            # A verdict that comes too late for the gate is no pass, even if the timer has not fired yet.
            late = time.monotonic_ns() > captured.deadline_ns
            rejected = score > captured.product.threshold
            decision: Decision = "fault" if late else "reject" if rejected else "pass"
            archive = None
            if decision == "reject" and self._archive is not None and captured.pixels is not None:
                name = self._picture_name(captured)
                archive = self._archive.keep(name, captured.pixels, anomaly_map, captured.product)
            scored = Scored(
                score,
                _peak(captured, captured.product.geometry, anomaly_map),
                (judged.started_ns - captured.captured_ns) / 1e6,
                (judged.finished_ns - judged.started_ns) / 1e6,
                None if archive is None else str(archive),
            )
            self._put(captured, decision, "deadline" if late else None, scored)

    def _close_as_fault(self, key: FrameKey, reason: Reason) -> CapturedFrame | None:
        captured = self._ledger.close(key)
        if captured is not None:
            self._put(captured, "fault", reason)
        return captured

    def _picture_name(self, captured: CapturedFrame) -> str:
        camera, frame = captured.key
        return f"{wall_clock(captured.captured_ns):%Y%m%dT%H%M%S}-{camera}-{frame:08d}"

    # What goes out.

    def _put(
        self,
        captured: CapturedFrame,
        decision: Decision,
        reason: Reason | None = None,
        scored: Scored | None = None,
    ) -> None:
        """Give a frame its verdict; all that this turn of the loop gives are journaled together."""
        if not len(self._outbox):
            self._loop.call_soon(self._flush)
        self._outbox.put(captured, decision, reason, scored)

    def _flush(self) -> None:
        self._outbox.flush()
        if not len(self._ledger):
            self._idle.set()

    async def _pulse(self) -> None:
        """Each second: look after cameras and lanes, send health, and feed the service's watchdog."""
        due_s = self._loop.time()
        while True:
            self._cameras.check_stalled()
            for hung in self._lanes.replace_hung(self._setup.config.engine_timeout_s):
                self._take(hung)
            self.send_health()
            if self._cameras.alive:
                self._service.alive(f"{self._health_state()}, {self._outbox.seq} verdicts")
            due_s += HEALTH_INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))

    def _pulse_ended(self, pulse: asyncio.Task[None]) -> None:
        if not pulse.cancelled() and (error := pulse.exception()) is not None:
            self._loop.call_exception_handler({"message": "the pulse ended", "exception": error})

    def _health_state(self) -> LineState:
        if self._state != "running":
            return self._state
        subscribers = {} if self._control is None else self._control.subscribers
        journal = self._outlet.journal_health()
        in_order = (
            self._cameras.in_order
            and (journal is None or journal.error is None)
            and not self._lanes.failing
            and all(subscribers[name].present for name in self._setup.config.required_subscribers)
        )
        return "running" if in_order else "degraded"

    def send_health(self) -> None:
        """Publish how the line fares now."""
        self._flush()  # its ``seq`` says what was published
        control = self._control
        self._outlet.send_health(
            Health(
                line=self._setup.config.line,
                boot=self._boot,
                seq=self._outbox.seq,
                state=self._health_state(),
                error=self._given_up,
                cameras={
                    name: CameraHealth(camera.state, camera.captured, self._outlet.faults[name], camera.error)
                    for name, camera in self._cameras.items()
                },
                product=self._product.name,
                engine=self._product.engine_name,
                journal=self._outlet.journal_health(),
                subscribers={} if control is None else control.subscribers,
                dropped_messages=self._outlet.dropped_messages,
                verdicts={"pass": 0, "reject": 0, "fault": 0, **self._outlet.decisions},
                waiting=len(self._ledger),
                uptime_s=round(time.monotonic() - self._started_s, 3),
                sent_at=iso(datetime.now(UTC)),
            )
        )

    # Changing over.

    async def command(self, command: str, arguments: dict[str, Any]) -> str:
        """Do what an operator asks for, and say what was done.

        Args:
            command: "reload", or "select" with the argument ``product``.
            arguments: by name.

        Raises:
            InputError: it cannot be done; the line runs on as before.
        """
        async with self._changing_over:
            self._refuse_unless_running()
            if command == "reload":
                return await self._reload()
            return self._select(arguments["product"])

    @property
    def _goes_on(self) -> bool:
        """Whether it runs, and its end has not been asked for either."""
        return self._state == "running" and not self._stop_asked.is_set() and self._given_up is None

    def _refuse_unless_running(self) -> None:
        if not self._goes_on:
            state = "stopping" if self._state == "running" else self._state
            raise InputError(f"{self._setup.config.line} is {state}")

    def _select(self, name: str) -> str:
        product = self._setup.products.get(name)
        if product is None:
            known = ", ".join(known for known in self._setup.products if known) or "the config names none"
            raise InputError(f"product {name!r}: unknown; expected one of its products: {known}")
        self._product = product
        self._note("select", {"product": name, "configured": self._setup.config.product})
        _log.info("%s: product %s, engine %s", self._setup.config.line, name, product.engine_name)
        self.send_health()
        return f"product {name}, engine {product.engine_name}"

    def _reload_on_signal(self) -> None:
        async def reload() -> None:
            if self._goes_on:
                self._service.reloading()
            try:
                await self.command("reload", {})
            except InputError as error:
                outcome = ", the line runs on as before" if self._goes_on else ""
                _log.error("reload refused%s: %s", outcome, error)
            if self._goes_on:  # while it starts, this would be taken for the start's
                self._service.ready()

        self._reloading = asyncio.create_task(reload())  # kept: a task without a reference may vanish

    async def _reload(self) -> str:
        """Change over to what the config says now; a captured frame keeps the product it was captured for."""
        old = self._setup
        setup = await self._load(lambda: load_setup(self._path, old))
        with ExitStack() as undo:  # what cannot be had refuses the reload while nothing has changed yet
            undo.callback(setup.close)
            self._refuse_unless_running()  # nothing must start any more when the line ends meanwhile
            cameras = self._cameras.prepare(setup)
            undo.callback(cameras.drop)
            archive = self._archive
            if setup.config.archive != old.config.archive:
                archive = await self._load(lambda: self._open_archive(setup))
                if archive is not None:
                    undo.callback(archive.close)
            if isinstance(self._access, CurveAccess) and setup.config.curve is not None:
                self._access.replace(clients_of(setup.config.curve))
            # Frames of another size want other slots: such cameras end before the new product's first frame.
            await cameras.stop_leaving()
            self._refuse_unless_running()
            undo.pop_all()
        self._flush()
        self._setup = setup
        self._lanes.adopt(setup.products.values(), setup.opened)
        if self._product.name in setup.products and setup.config.product == old.config.product:
            self._product = setup.products[self._product.name]  # the selection outlives a reload
        else:
            self._product = next(iter(setup.products.values()))
        self._outlet.on_journal_error = setup.config.on_journal_error
        if self._control is not None:
            self._control.require(setup.config.required_subscribers, setup.config.resend_after_s)
        self._cameras.complete(cameras, setup)
        if archive is not self._archive:
            self._archive, retired = archive, self._archive
            if retired is not None:
                await asyncio.to_thread(retired.close)
        self._note("reload", {"product": self._product.name, "sha256": setup.hashes})
        _log.info("%s: runs on the new config, engine %s", setup.config.line, self._product.engine_name)
        self.send_health()
        return f"{self._path}: taken up, engine {self._product.engine_name}"

    async def _load(self, load: Callable[[], T]) -> T:
        """Load something beside the line, from a disk or onto a GPU that may hang.

        Raises:
            InputError: something is wrong with it, or the line ends before it is loaded.
        """
        loading = self._loader.submit(load)
        self._loading = loading
        loaded = asyncio.wrap_future(loading)
        loaded.add_done_callback(lambda _: self._changed.set())
        await self._until(lambda: loaded.done() or self._given_up is not None, self._changed)
        if not loaded.done():
            loaded.cancel()
            raise InputError(f"{self._setup.config.line} is stopping")
        return loaded.result()

    def _note(self, kind: str, content: dict[str, Any]) -> None:
        if self._journal is not None:
            try:
                self._journal.note(kind, {"boot": self._boot, **content})
            except JournalFailed as error:
                _log.error("journal: %s", error)

    @staticmethod
    def _open_archive(setup: Setup) -> Archive | None:
        archive = setup.config.archive
        return None if archive is None else Archive(archive.folder, max_mb=archive.max_mb)


def _peak(captured: CapturedFrame, geometry: MapGeometry, anomaly_map: NDArray[np.float32]) -> Peak | None:
    """Find the peak of an anomaly map in the camera's picture."""
    region, size = captured.region, geometry.frame
    if region is None:
        return None
    x, y = geometry.peak(anomaly_map)
    return Peak(
        int(region.x + x * region.width / size.width), int(region.y + y * region.height / size.height)
    )
