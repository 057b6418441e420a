"""Supervises real camera processes as the daemon does, and notes what came of it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from patience import PATIENCE_S

from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import CameraSettings
from daemon.capture.supervisor import Arrival, DaemonCamera
from pictures.frames import Size

SIZE = Size(64, 64)


class CameraRig:
    """A sink that gives slots back at once, or keeps them while ``holding``."""

    def __init__(self) -> None:
        self.cameras: dict[str, DaemonCamera] = {}
        self.arrivals: dict[str, list[Arrival]] = {}
        self.states: dict[str, list[tuple[str, str | None]]] = {}
        self.changed_s: dict[str, list[float]] = {}
        self.holding = False
        self.checking = True
        self._news = asyncio.Event()

    def start(self, name: str, *, counter: CaptureCounter | None = None, **settings: Any) -> DaemonCamera:
        counter = counter or CaptureCounter.create(None, "aa")
        camera = DaemonCamera(
            name, CameraSettings(**settings), SIZE, judged_at_once=1, sink=self, counter=counter
        )
        self.cameras[name] = camera
        self.arrivals[name], self.states[name], self.changed_s[name] = [], [], []
        camera.start()
        return camera

    def arrived(self, camera: str, arrival: Arrival) -> None:
        self.arrivals[camera].append(arrival)
        if arrival.slot is not None and not self.holding:
            self.cameras[camera].free(arrival.slot)
        self._news.set()

    def camera_changed(self, camera: str) -> None:
        self.states[camera].append((self.cameras[camera].state, self.cameras[camera].error))
        self.changed_s[camera].append(time.monotonic())
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), 0.2)
                for camera in self.cameras.values() if self.checking else ():
                    camera.check_stalled()

    async def until_state(self, name: str, state: str) -> None:
        seen = len(self.states[name])
        await self.until(lambda: state in [entry[0] for entry in self.states[name][seen:]])

    async def stop(self) -> None:
        await asyncio.gather(*(camera.stop(2.0) for camera in self.cameras.values()))
        for camera in self.cameras.values():
            camera.close()

    def frames(self, name: str) -> list[int]:
        return [arrival.frame for arrival in self.arrivals[name]]

    def errors(self, name: str) -> list[str]:
        return [arrival.error for arrival in self.arrivals[name] if arrival.error is not None]

    def check_every_frame_came_once(self) -> None:
        for name, camera in self.cameras.items():
            assert self.frames(name) == list(range(1, camera.captured + 1))


def supervise(story: Callable[[CameraRig], Coroutine[Any, Any, None]]) -> CameraRig:
    """Run a story with a rig, stop its cameras, and see that no frame was lost or doubled."""

    async def told() -> CameraRig:
        rig = CameraRig()
        try:
            await story(rig)
        finally:
            await rig.stop()
        rig.check_every_frame_came_once()
        return rig

    return asyncio.run(told())
