import os
from pathlib import Path

import cv2
import numpy as np

from daemon.capture.drivers import CameraFailed, CameraSettings, Picture
from foundation.errors import InputError
from pictures.frames import Size

OPEN_TIMEOUT_MS = 5_000
READ_TIMEOUT_MS = 5_000

# What goes wrong is said once, in our own words; theirs fill many lines.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class VideoCamera:
    """What OpenCV can capture from: a V4L2 device, a network stream or a video file."""

    def __init__(
        self,
        capture: cv2.VideoCapture,
        source: str,
        *,
        live: bool = True,
        loop: bool = False,
        stamped: bool = False,
    ) -> None:
        """Take over an opened capture; ``stamped``: its position is the time of the device's clock."""
        self._capture = capture
        self._source = source
        self._loop = loop
        self._stamped = stamped
        self.live = live
        size = Size(int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        self.picture_size = size if min(size) > 0 else None

    def grab(self) -> Picture | None:
        grabbed, pixels = self._capture.read()
        if not grabbed and self.live:
            raise CameraFailed(f"{self._source} stopped delivering frames")
        if not grabbed and self._loop:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            grabbed, pixels = self._capture.read()
        if not grabbed:
            return None
        device_ns = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) if self._stamped else 0
        return Picture(np.asarray(pixels, dtype=np.uint8), None, device_ns or None)

    def close(self) -> None:
        self._capture.release()


def open_device(settings: CameraSettings) -> VideoCamera:
    """Open a V4L2 device, asking for the configured size and rate.

    Raises:
        CameraFailed: there is no such device, or it does not open.
        InputError: it does not deliver the size that is asked for.
    """
    if not Path(settings.source).exists():
        raise CameraFailed(f"{settings.source}: no such device")
    capture = cv2.VideoCapture(settings.source, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CameraFailed(f"{settings.source} does not open as a V4L2 camera; is another program using it?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)  # the default of four would deliver pictures late
    wanted = {
        cv2.CAP_PROP_FRAME_WIDTH: settings.width,
        cv2.CAP_PROP_FRAME_HEIGHT: settings.height,
        cv2.CAP_PROP_FPS: settings.fps,
    }
    for prop, value in wanted.items():
        if value is not None:
            capture.set(prop, value)
    camera = VideoCamera(capture, settings.source, stamped=True)
    for name, got, want in zip(
        ("height", "width"), camera.picture_size or (0, 0), (settings.height, settings.width), strict=True
    ):
        if want is not None and got != want:
            camera.close()
            raise InputError(f"{settings.source} delivers {name} {got}; {name} {want} was asked for")
    return camera


def open_stream(address: str) -> VideoCamera:
    """Open an RTSP or HTTP stream.

    Raises:
        CameraFailed: nothing answers there, or what answers is no video.
    """
    # OpenCV heeds its time-outs only with an explicit backend and at construction.
    capture = cv2.VideoCapture(
        address,
        cv2.CAP_FFMPEG,
        [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            READ_TIMEOUT_MS,
        ],
    )
    if not capture.isOpened():
        raise CameraFailed(f"{address} does not open as a video stream")
    return VideoCamera(capture, address)


def open_video_file(path: Path, *, loop: bool, first_frame: int) -> VideoCamera:
    """Open a video file.

    Raises:
        InputError: the file is no video that OpenCV can read.
    """
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(f"{path}: is not a video that OpenCV can read")
    if first_frame > 1 and not loop:
        capture.set(cv2.CAP_PROP_POS_FRAMES, first_frame - 1)
    return VideoCamera(capture, str(path), live=False, loop=loop)
