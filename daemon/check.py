"""Whether a line's cameras open, found out without judging anything."""

import asyncio
import contextlib
from collections.abc import Mapping

from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import CameraSettings
from daemon.capture.supervisor import Arrival, DaemonCamera, refuse_failed
from pictures.frames import Size

_BOOT = "0"  # no verdict will carry it


class _Opening:
    """Waits for cameras and lets their frames be."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def arrived(self, camera: str, arrival: Arrival) -> None:
        pass

    def camera_changed(self, camera: str) -> None:
        self.changed.set()


async def check_cameras(settings: Mapping[str, CameraSettings], size: Size) -> None:
    """Open every camera as the running daemon would, in a process of its own, and close it again.

    Args:
        settings: camera name to its entry in the config.
        size: the engine's input size.

    Raises:
        InputError: a camera does not open.
    """
    opening = _Opening()
    cameras = [
        DaemonCamera(
            name, entry, size, judged_at_once=1, sink=opening, counter=CaptureCounter.create(None, _BOOT)
        )
        for name, entry in settings.items()
    ]
    for camera in cameras:
        camera.start()
    try:
        while any(camera.state == "opening" for camera in cameras):
            opening.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(opening.changed.wait(), 1.0)
            for camera in cameras:
                camera.check_stalled()
        refuse_failed(cameras)
    finally:
        await asyncio.gather(*(camera.stop(patience_s=2.0) for camera in cameras))
