"""Controls of a V4L2 device by their names, as ``v4l2-ctl --list-ctrls`` shows them: set and read back."""

import fcntl
import os
import re
import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from daemon.capture.drivers import CameraSettings
from foundation.errors import InputError

# linux/videodev2.h: VIDIOC_QUERYCTRL, VIDIOC_G_CTRL and VIDIOC_S_CTRL
_QUERY: Final = 0xC0445624
_GET: Final = 0xC008561B
_SET: Final = 0xC008561C
_NEXT: Final = 0x8000_0000
_DISABLED: Final = 0x0001
_QUERIED: Final = struct.Struct("=II32siiiiI8x")
_VALUE: Final = struct.Struct("=Ii")
_MANUAL: Final = 1  # of the menu auto_exposure
_EXPOSURE_STEP_US: Final = 100.0

Ioctl = Callable[[int, int, bytearray], object]


class _Control(NamedTuple):
    number: int
    least: int
    most: int


def set_controls(settings: CameraSettings, ioctl: Ioctl = fcntl.ioctl) -> None:
    """Set the controls that a camera's ``features`` and ``trigger`` name, in this order.

    Args:
        settings: of the camera; its source is the device.
        ioctl: asks the kernel.

    Raises:
        InputError: the device has no such control, or keeps another value.
    """
    wanted = _wanted(settings)
    if not wanted:
        return
    source = settings.source
    try:
        device = os.open(source, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{source}: its controls cannot be set: {error.strerror}") from error
    try:
        controls = _controls(device, ioctl)
        for (key, name), value in wanted.items():
            control = controls.get(name)
            if control is None:
                known = ", ".join(controls) or "none"
                raise InputError(f"{source}: {key}: the device has no control {name}; it has {known}")
            if not control.least <= value <= control.most:
                raise InputError(
                    f"{source}: {key}: found {value}, expected {control.least} to {control.most}"
                )
            _set(device, f"{source}: {key}", control, value, ioctl)
    finally:
        os.close(device)


def _wanted(settings: CameraSettings) -> dict[tuple[str, str], int]:
    """Give the value for each key of the config and name of a control."""
    wanted: dict[tuple[str, str], int] = {}
    for name, value in (settings.features or {}).items():
        if not isinstance(value, int):  # true and false are numbers, too
            raise InputError(f"{settings.source}: features.{name}: found {value!r}, expected a whole number")
        wanted[f"features.{name}", name] = int(value)
    trigger = settings.trigger
    if trigger is None or trigger.by != "hardware":
        return wanted
    for key in ("line", "strobe"):
        if getattr(trigger, key) is not None:
            raise InputError(
                f"{settings.source}: trigger.{key}: V4L2 knows none; expected the driver's own controls "
                "under features"
            )
    if trigger.exposure_us is not None:
        wanted["trigger.exposure_us", "auto_exposure"] = _MANUAL
        wanted["trigger.exposure_us", "exposure_time_absolute"] = max(
            1, round(trigger.exposure_us / _EXPOSURE_STEP_US)
        )
    return wanted


def _controls(device: int, ioctl: Ioctl) -> Mapping[str, _Control]:
    found: dict[str, _Control] = {}
    number = 0
    while True:
        asked = bytearray(_QUERIED.pack(number | _NEXT, 0, b"", 0, 0, 0, 0, 0))
        try:
            ioctl(device, _QUERY, asked)
        except OSError:  # there is no further one, or none at all
            return found
        number, _, name, least, most, _, _, flags = _QUERIED.unpack(asked)
        if not flags & _DISABLED:
            text = name.split(b"\0")[0].decode(errors="replace").lower()
            found[re.sub(r"[^a-z0-9]+", "_", text).strip("_")] = _Control(number, least, most)


def _set(device: int, key: str, control: _Control, value: int, ioctl: Ioctl) -> None:
    try:
        ioctl(device, _SET, bytearray(_VALUE.pack(control.number, value)))
        kept = bytearray(_VALUE.pack(control.number, 0))
        ioctl(device, _GET, kept)
    except OSError as error:
        raise InputError(f"{key}: cannot be set to {value}: {error.strerror}") from error
    if _VALUE.unpack(kept)[1] != value:
        raise InputError(f"{key}: the device keeps {_VALUE.unpack(kept)[1]}; {value} was asked for")
