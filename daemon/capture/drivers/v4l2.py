import os
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from daemon.capture.drivers import CameraFailed, CameraSettings, Picture
from daemon.capture.drivers.jpeg import decode_jpeg
from daemon.capture.drivers.v4l2_controls import set_controls
from foundation.errors import InputError
from pictures.frames import Frame, Size

_JPEG: Final = frozenset({b"MJPG", b"JPEG"})
_OPENCV_WAITS: Final = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_FOR_A_TRIGGER_S: Final = 31_536_000  # a year: there is no "for ever"

# What goes wrong is said once, in our own words; theirs fill many lines.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class V4l2Camera:
    """A V4L2 device, through OpenCV."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, source: str) -> None:
        """Take over an opened capture."""
        self._capture = capture
        self._source = source
        size = Size(int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        self.picture_size = size if min(size) > 0 else None
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
        # OpenCV would fill up what is missing in a JPEG: take it as it comes.
        self._is_jpeg = code in _JPEG and capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def grab(self) -> Picture | None:
        grabbed, taken = self._capture.read()
        if not grabbed:
            raise CameraFailed(f"{self._source} stopped delivering frames")
        device_ns = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        pixels: Frame = np.asarray(taken, dtype=np.uint8)
        if self._is_jpeg:
            pixels = decode_jpeg(pixels.tobytes())
        return Picture(pixels, None, device_ns or None)

    @property
    def exposure_us(self) -> float | None:
        """Exposure time in microseconds; None when the device does not say. V4L2 counts in steps of 100."""
        return 100 * self._capture.get(cv2.CAP_PROP_EXPOSURE) or None

    def close(self) -> None:
        self._capture.release()


def open_device(settings: CameraSettings) -> V4l2Camera:
    """Open a V4L2 device, asking for the configured size and rate.

    Raises:
        CameraFailed: there is no such device, or it does not open.
        InputError: it does not deliver the size that is asked for, or has not the controls.
    """
    if not Path(settings.source).exists():
        raise CameraFailed(f"{settings.source}: no such device")
    set_controls(settings)
    if settings.trigger is not None and settings.trigger.by == "hardware":
        # OpenCV gives up after 10 s without a picture; the next part may come later. It still hears of a
        # device that goes away.
        os.environ[_OPENCV_WAITS] = str(_FOR_A_TRIGGER_S)
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
    camera = V4l2Camera(capture, settings.source)
    for name, got, want in zip(
        ("height", "width"), camera.picture_size or (0, 0), (settings.height, settings.width), strict=True
    ):
        if want is not None and got != want:
            camera.close()
            raise InputError(f"{settings.source} delivers {name} {got}; {name} {want} was asked for")
    return camera
