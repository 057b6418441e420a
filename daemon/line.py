"""The running line, from its start to its end: every frame that a camera captured has its verdict before."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from daemon.delivery.drift_watch import DriftNews
from daemon.drift import accept_drift, note_drift
from daemon.expect import ExpectedDefects
from daemon.golden import Golden
from daemon.health import health_now, statistics_of_cameras
from daemon.judging.lane import NotJudged
from daemon.reload import Beside, reload, select, told
from daemon.running import Running
from foundation.errors import InputError
from foundation.sd_notify import Service
from verdicts.health import HEALTH_INTERVAL_S, Health, LineState

_LONGEST_DRAIN_S = 5.0
_log = logging.getLogger("inspectd")


class Line:
    """One configured line from its first frame to its last verdict.

    Everything here happens in the thread of the event loop; lanes hand their results over to it. So the
    ledger needs no lock.
    """

    def __init__(self, on: Running, on_signal: Callable[[int, Callable[[], None]], None]) -> None:
        """Take over what the line runs on; ``run`` starts it.

        Args:
            on: what it runs on.
            on_signal: has the event loop call back when a signal comes.
        """
        self._on = on
        self._on_signal = on_signal
        self._loop = asyncio.get_running_loop()
        self._service = Service()
        self._started_s = time.monotonic()
        self._state: LineState = "starting"
        self._given_up: str | None = None
        self.complete = True
        """Whether every captured frame gets its verdict; False after an error of our own."""
        self._changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._changing_over = asyncio.Lock()
        self._reloading: set[asyncio.Task[None]] = set()
        self._beside = Beside(on.line, self._ending)
        self._golden = Golden(on, self._ending)
        self._expected = ExpectedDefects(on, self._ending)
        on.intake.on_camera_change = self._camera_changed
        on.verdicts.on_engine_failure = self._engine_failed

    @property
    def hung(self) -> bool:
        """Whether a thread hangs in a runtime or still loads: then only force ends the process."""
        return self._on.lanes.hung or self._beside.busy

    def _camera_changed(self) -> None:
        """Publish a camera's new state at once: it may last for less than a second."""
        self._changed.set()
        if self._state == "running":
            self.send_health()

    def _engine_failed(self, failed: NotJudged) -> None:
        if failed.lane.given_up:
            self._give_up(f"{failed.error}, {failed.lane.failures} failures in a row")

    # From the start to the end.

    async def run(self) -> int:
        """Inspect until SIGTERM or SIGINT, or until every camera has ended.

        Returns:
            The exit code: 0, or 1 when the line had to be given up.

        Raises:
            InputError: a camera did not open at the start.
        """
        self._loop.set_exception_handler(self._broken)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._on_signal(number, self._ending.set)
        self._on_signal(signal.SIGHUP, self._reload_on_signal)
        self._on.lanes.start()
        pulse = asyncio.create_task(self._pulse())
        pulse.add_done_callback(self._pulse_ended)
        config = self._on.setup.config
        try:
            with suppress(InputError):  # it ends before its first part
                await self._golden.test(self._on.setup.golden, "start")
            self._on.intake.cameras.start()
            await self._until(lambda: self._on.intake.cameras.tried, self._changed)
            self._on.intake.cameras.refuse_wrong()
            self._state = "running"
            if not self._ending.is_set():
                _log.info("%s: running, verdicts on %s", config.line, config.publish)
                if self._on.journal is None:
                    _log.warning("no journal is configured: verdicts can be neither replayed nor audited")
                self._service.ready()
            # While the line changes over, cameras end to be replaced.
            await self._until(
                lambda: self._on.intake.cameras.ended and not self._changing_over.locked(), self._changed
            )
            # A line that ends by itself has time: only deadlines limit its last frames.
            await self._until(lambda: not len(self._on.ledger), self._on.verdicts.idle)
            if self._on.intake.cameras.ended:
                self._on.intake.cameras.refuse_wrong()  # a video that is cut short does not end in order
        finally:
            self._ending.set()
            self._service.stopping()
            self._state = "stopping"
            await self._drain()
            pulse.cancel()
            self._state = "stopping" if self._given_up is None else "failed"
            self.send_health()
        self._on.publisher.catch_up()  # so that all are counted
        counts = dict(self._on.publisher.decisions)
        _log.info("%s: stopped after %d verdicts %s", config.line, self._on.verdicts.seq, counts)
        if self._given_up is not None:
            _log.error("%s: given up: %s", config.line, self._given_up)
            return 1
        return 0

    async def _until(self, condition: Callable[[], bool], changed: asyncio.Event) -> None:
        """Wait for a condition that may hold when an event is set, or for the line's end."""
        ending = asyncio.create_task(self._ending.wait())
        while not condition() and not ending.done():
            changed.clear()
            change = asyncio.create_task(changed.wait())
            await asyncio.wait((ending, change), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
        ending.cancel()

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Give the line up after an error of our own: a frame may have lost its verdict."""
        self.complete = False
        self._give_up(f"internal error: {context.get('exception') or context['message']}")
        loop.default_exception_handler(context)

    def _give_up(self, why: str) -> None:
        self._given_up = self._given_up or why
        self._ending.set()

    async def _drain(self) -> None:
        """Stop the cameras and see every frame they captured to its verdict."""
        await self._on.intake.cameras.stop()
        if len(self._on.ledger):
            self._on.verdicts.idle.clear()
            try:
                await asyncio.wait_for(self._on.verdicts.idle.wait(), _LONGEST_DRAIN_S)
            except TimeoutError:
                for key in self._on.ledger.open_keys():
                    self._on.verdicts.fault(key, "shutdown")
        self._on.verdicts.flush()
        self._on.waiting.end()
        # A hung device must not keep the service from stopping: its frames have their verdicts.
        await asyncio.to_thread(self._on.lanes.join, _LONGEST_DRAIN_S)
        if self._on.verdicts.archive is not None:
            await asyncio.to_thread(self._on.verdicts.archive.close)
        if self._on.verdicts.preview is not None:
            await asyncio.to_thread(self._on.verdicts.preview.close)
        if self._on.verdicts.drift is not None:
            await asyncio.to_thread(self._on.verdicts.drift.close)

    async def _pulse(self) -> None:
        """Each second: look after cameras and lanes, send health, and feed the service's watchdog."""
        due_s = self._loop.time()
        while True:
            self._on.intake.cameras.check_stalled()
            for hung in self._on.lanes.replace_hung(self._on.setup.config.engine_timeout_s):
                self._on.verdicts.take(hung)
            self._golden.test_what_is_due()
            health = self.send_health()
            if self._on.intake.cameras.alive:
                self._service.alive(f"{health.state}, {health.seq} verdicts")
            due_s += HEALTH_INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))

    def _pulse_ended(self, pulse: asyncio.Task[None]) -> None:
        if not pulse.cancelled() and (error := pulse.exception()) is not None:
            self._loop.call_exception_handler({"message": "the pulse ended", "exception": error})

    def send_health(self) -> Health:
        """Publish the line's health, and return it."""
        self._on.verdicts.flush()  # its ``seq`` says what was published
        health = health_now(
            self._on,
            phase=self._state,
            given_up=self._given_up,
            golden=self._golden.health(),
            uptime_s=time.monotonic() - self._started_s,
        )
        self._on.publisher.watched = statistics_of_cameras(self._on)
        self._on.publisher.send_health(health)
        return health

    # Changing over.

    @property
    def _goes_on(self) -> bool:
        """Whether it runs, and its end has not begun."""
        return self._state == "running" and not self._ending.is_set()

    async def command(self, command: str, arguments: dict[str, Any]) -> str:
        """Do what an operator asks for, and say what was done.

        Args:
            command: "reload", "select" with the argument ``product``, "trigger" with ``camera``, ``part`` and
                ``at_ns``, "selftest", "accept_drift" with ``camera`` and ``by``, or "expect" with ``camera``,
                ``part``, ``within_s`` and ``by``.
            arguments: by name.

        Raises:
            InputError: it cannot be done; the line runs on as before.
        """
        self._refuse_at_the_end()
        if command == "trigger":  # a part does not wait for a reload
            return self._trigger(**arguments)
        if command == "expect":
            return await self._expected.expect(**arguments)  # it may take an hour, and changes nothing
        async with self._changing_over:
            self._refuse_at_the_end()
            try:
                done = await self._done(command, arguments)
            except InputError:
                raise
            except Exception as error:  # it may be half changed over
                self._loop.call_exception_handler({"message": f"{command} broke", "exception": error})
                raise InputError(f"{self._on.line} is failed: {told(error)}") from error
            finally:
                self.send_health()
        return done

    def _trigger(self, camera: str, part: str | None, at_ns: int) -> str:
        """Have the picture judged that a camera took nearest to a time."""
        self._on.intake.cameras.named(camera).trigger(at_ns, part)
        return f"camera {camera}: triggered" + ("" if part is None else f", part {part}")

    def _refuse_at_the_end(self) -> None:
        if not self._goes_on:
            state = "stopping" if self._state == "running" else self._state
            raise InputError(f"{self._on.line} is {state}")

    async def _done(self, command: str, arguments: dict[str, Any]) -> str:
        match command:
            case "reload":
                try:
                    return await reload(self._on, self._beside, self._golden)
                finally:
                    self._golden.changed_over()
            case "accept_drift":
                return await accept_drift(self._on, **arguments)
            case "selftest":
                return await self._golden.selftest()
            case _:
                product = self._on.setup.products.get(arguments["product"])
                if product is not None:
                    await self._golden.test(self._golden.of([product]), "select")
                return select(self._on, arguments["product"])

    def drifted(self, news: DriftNews) -> None:
        """Note and publish that something has changed since the calibration, or no longer has."""
        note_drift(self._on, news)
        if self._state == "running":
            self.send_health()

    def _reload_on_signal(self) -> None:
        async def by_signal() -> None:
            if self._goes_on:
                self._service.reloading()
            try:
                await self.command("reload", {})
            except InputError as error:
                outcome = ", the line runs on as before" if self._goes_on else ""
                _log.error("reload refused%s: %s", outcome, error)
            finally:
                if self._goes_on:  # during the start, systemd would take this for the start's own READY
                    self._service.ready()

        reloading = asyncio.create_task(by_signal())
        self._reloading.add(reloading)  # kept: a task without a reference may vanish
        reloading.add_done_callback(self._reloading.discard)
