"""All cameras of a line: made, watched and exchanged together."""

import asyncio
import logging
from collections.abc import ItemsView, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from daemon.capture.counter import CaptureCounter, counter_file
from daemon.capture.drivers import CameraSettings
from daemon.capture.supervisor import DaemonCamera, FrameSink, refuse_failed
from engine_runtime.cuda_driver import DriverFailed
from foundation.errors import InputError
from pictures.frames import Size
from pictures.locating.reference import Reference

_STOP_S = 2.0
_log = logging.getLogger("inspectd")


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """The cameras of a config, and what they have to know about its engines."""

    cameras: Mapping[str, CameraSettings]
    size: Size
    """Of the frames that the engines take."""
    judged_at_once: int
    """Frames that all lanes together may hold."""
    on_gpu: bool
    """Whether an engine computes on a GPU, to which frames in locked memory are copied faster."""
    references: Mapping[str, Reference] = field(default_factory=dict)
    """Camera → the part that is looked for in its pictures, of those that look for one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Cameras that leave, and those that were made and wait to be started."""

    plan: CameraPlan
    """What is wanted then."""
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

    def __init__(self, plan: CameraPlan, *, boot: str, journal: Path | None, sink: FrameSink) -> None:
        """Make the cameras of a config; ``start`` starts them.

        Args:
            plan: which cameras.
            boot: hexadecimal digits that name this start of the daemon.
            journal: beside which their frames are counted; None: only in memory.
            sink: where the frames go.

        Raises:
            InputError: there is no memory for their frames, or these cannot be counted beside the journal.
        """
        self._plan = plan
        self._boot = boot
        self._journal = journal
        self._sink = sink
        # Kept for a name that leaves: when it comes back, its frames go on being counted.
        self._counters: dict[str, CaptureCounter] = {}
        self._cameras: dict[str, DaemonCamera] = {}
        self._cameras = self._make(plan, plan.cameras)

    def __getitem__(self, name: str) -> DaemonCamera:
        return self._cameras[name]

    def named(self, name: str) -> DaemonCamera:
        """Give the camera that an operator names.

        Raises:
            InputError: there is no such camera.
        """
        if name not in self._cameras:
            raise InputError(f"camera {name!r}: unknown; expected one of {', '.join(self._cameras)}")
        return self._cameras[name]

    def items(self) -> ItemsView[str, DaemonCamera]:
        """Give names and cameras."""
        return self._cameras.items()

    @property
    def tried(self) -> bool:
        """Whether the first opening of each has succeeded or failed, or one is known never to work."""
        cameras = self._cameras.values()
        # A process that has said so may live for another moment; the camera is refused when it has failed.
        hopeless = any(camera.wrong and camera.state == "failed" for camera in cameras)
        return hopeless or all(camera.tried for camera in cameras)

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

    def prepare(self, plan: CameraPlan) -> Exchange:
        """Make the cameras that a new config wants and that are not among these.

        Raises:
            InputError: as the constructor; nothing has changed.
        """
        old = self._plan
        # Slots are made for one size and number of frames.
        everything = (plan.size, plan.judged_at_once) != (old.size, old.judged_at_once)
        leaving = {
            name: camera
            for name, camera in self._cameras.items()
            if everything
            or plan.cameras.get(name) != camera.settings
            or plan.references.get(name) != camera.reference
        }
        arriving = [name for name in plan.cameras if name in leaving or name not in self._cameras]
        return Exchange(plan, leaving, self._make(plan, arriving))

    def complete(self, exchange: Exchange) -> None:
        """Let those that were made take the places of those that have stopped."""
        self._plan = exchange.plan
        for name, camera in exchange.leaving.items():
            del self._cameras[name]
            camera.close()
        self._cameras |= exchange.arriving
        for camera in exchange.arriving.values():
            camera.start()

    def _make(self, plan: CameraPlan, names: Iterable[str]) -> dict[str, DaemonCamera]:
        with ExitStack() as undo:
            made: dict[str, DaemonCamera] = {}
            for name in names:
                made[name] = self._make_one(name, plan)
                undo.callback(made[name].close)
            undo.pop_all()
        return made

    def _make_one(self, name: str, plan: CameraPlan) -> DaemonCamera:
        if name not in self._counters:
            file = None if self._journal is None else counter_file(self._journal, name)
            self._counters[name] = CaptureCounter.create(file, self._boot)
        camera = DaemonCamera(
            name,
            plan.cameras[name],
            plan.size,
            judged_at_once=plan.judged_at_once,
            sink=self._sink,
            counter=self._counters[name],
            reference=plan.references.get(name),
        )
        if plan.on_gpu:
            try:
                camera.slots.page_lock()
            except DriverFailed as error:
                _log.warning("camera %s: its frames take longer to reach the GPU: %s", name, error)
        return camera


async def _stop(cameras: Mapping[str, DaemonCamera]) -> None:
    await asyncio.gather(*(camera.stop(_STOP_S) for camera in cameras.values()))
