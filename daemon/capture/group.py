"""All cameras of a line: made, watched and exchanged together."""

import asyncio
import logging
from collections.abc import ItemsView, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from daemon.capture.counter import CaptureCounter
from daemon.capture.supervisor import DaemonCamera, FrameSink, refuse_failed
from daemon.load import Setup
from daemon.recovery import counter_file
from engine_runtime.cuda_driver import DriverFailed

_STOP_S = 2.0
_log = logging.getLogger("inspectd")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Cameras that leave, and those that were made and wait to be started."""

    leaving: Mapping[str, DaemonCamera]
    arriving: Mapping[str, DaemonCamera]

    async def stop_leaving(self) -> None:
        """End those that leave; every frame they captured has reached the sink when this returns."""
        await _stop(self.leaving)

    def drop(self) -> None:
        """Give back what was made, when the exchange does not take place."""
        for camera in self.arriving.values():
            camera.close()


class CameraGroup:
    """The cameras by name. Used by the daemon's thread only."""

    def __init__(self, setup: Setup, *, boot: str, sink: FrameSink) -> None:
        """Make the cameras of a config; ``start`` starts them.

        Args:
            setup: the config and what its engines take.
            boot: hexadecimal digits that name this start of the daemon.
            sink: where the frames go.

        Raises:
            InputError: there is no memory for their frames, or these cannot be counted beside the journal.
        """
        self._setup = setup
        self._boot = boot
        self._sink = sink
        # Kept for a name that leaves: when it comes back, its frames go on being counted.
        self._counters: dict[str, CaptureCounter] = {}
        self._cameras: dict[str, DaemonCamera] = {}
        self._cameras = self._make(setup, setup.config.cameras)

    def __getitem__(self, name: str) -> DaemonCamera:
        return self._cameras[name]

    def items(self) -> ItemsView[str, DaemonCamera]:
        """Give names and cameras."""
        return self._cameras.items()

    @property
    def tried(self) -> bool:
        """Whether it is known of all how their first opening went, or of one that it can never work."""
        cameras = self._cameras.values()
        # One that has said so may live for another moment, and is refused when it has failed.
        hopeless = any(camera.wrong and camera.state == "failed" for camera in cameras)
        return hopeless or all(camera.tried for camera in cameras)

    @property
    def in_order(self) -> bool:
        """Whether none is in trouble."""
        return all(
            camera.state in {"running", "ended"} and not camera.error for camera in self._cameras.values()
        )

    @property
    def ended(self) -> bool:
        """Whether no more frames will come from any."""
        return all(camera.over for camera in self._cameras.values())

    @property
    def alive(self) -> bool:
        """Whether the supervision of all makes progress."""
        return all(camera.alive for camera in self._cameras.values())

    def start(self) -> None:
        """Start their processes."""
        for camera in self._cameras.values():
            camera.start()

    def refuse_wrong(self) -> None:
        """Refuse cameras that can never work.

        One that is not there yet may come: after a power cut this PC may be up before its cameras.

        Raises:
            InputError: names the first of them, and why.
        """
        refuse_failed(camera for camera in self._cameras.values() if camera.wrong)

    def check_stalled(self) -> None:
        """Kill the processes that have been silent for too long; to be called every second or so."""
        for camera in self._cameras.values():
            camera.check_stalled()

    async def stop(self) -> None:
        """End all of them; every frame they captured has reached the sink when this returns."""
        await _stop(self._cameras)

    def prepare(self, setup: Setup) -> Exchange:
        """Make the cameras that a new config wants and that are not among these.

        Raises:
            InputError: as the constructor; nothing has changed.
        """
        old = self._setup
        # Slots are made for one size and number of frames.
        everything = (setup.input_size, setup.judged_at_once) != (old.input_size, old.judged_at_once)
        leaving = {
            name: camera
            for name, camera in self._cameras.items()
            if everything or setup.config.cameras.get(name) != camera.settings
        }
        arriving = [name for name in setup.config.cameras if name in leaving or name not in self._cameras]
        return Exchange(leaving, self._make(setup, arriving))

    def complete(self, exchange: Exchange, setup: Setup) -> None:
        """Let those that were made take the places of those that have stopped."""
        self._setup = setup
        for name, camera in exchange.leaving.items():
            del self._cameras[name]
            camera.close()
        self._cameras |= exchange.arriving
        for camera in exchange.arriving.values():
            camera.start()

    def _make(self, setup: Setup, names: Iterable[str]) -> dict[str, DaemonCamera]:
        with ExitStack() as undo:
            made: dict[str, DaemonCamera] = {}
            for name in names:
                made[name] = self._make_one(name, setup)
                undo.callback(made[name].close)
            undo.pop_all()
        return made

    def _make_one(self, name: str, setup: Setup) -> DaemonCamera:
        if name not in self._counters:
            journal = setup.config.journal
            file = None if journal is None else counter_file(journal.file, name)
            self._counters[name] = CaptureCounter.create(file, self._boot)
        camera = DaemonCamera(
            name,
            setup.config.cameras[name],
            setup.input_size,
            judged_at_once=setup.judged_at_once,
            sink=self._sink,
            counter=self._counters[name],
        )
        if setup.on_gpu:
            try:
                camera.slots.page_lock()
            except DriverFailed as error:
                _log.warning("camera %s: its frames take longer to the GPU: %s", name, error)
        return camera


async def _stop(cameras: Mapping[str, DaemonCamera]) -> None:
    await asyncio.gather(*(camera.stop(_STOP_S) for camera in cameras.values()))
