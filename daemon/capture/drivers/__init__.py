"""The seam of the cameras: every kind implements ``Camera``. Only camera processes import the kinds."""

# What a camera raises:
#
# foundation.errors.InputError   the config asks for something that cannot work; trying again does not help
# CameraFailed                   the device broke or went away; opening it again may help
# BadPicture                     one frame could not be read; the next one may be fine

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Protocol

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from daemon.host.cores import Cores
from foundation.errors import InputError
from foundation.secrets import masked
from pictures.frames import Frame, Roi, Size
from pictures.tiles import TileGrid, Tiles

MOST_PARTS: Final = 64
"""In one picture."""


class CameraFailed(Exception):
    """The device broke, went away or stopped delivering."""

    def __str__(self) -> str:
        return masked(super().__str__())


class BadPicture(Exception):
    """One captured frame could not be read.

    ``part`` names the part it showed, as ``Picture.part`` does.
    """

    def __init__(self, message: str, part: str | None) -> None:
        super().__init__(message)
        self.part = part

    def __str__(self) -> str:
        return masked(super().__str__())


class Picture(NamedTuple):
    """What a camera captured."""

    pixels: Frame
    """H×W×3 uint8 BGR; never written to after it was handed out."""
    part: str | None
    """The part it shows, where the camera knows it."""
    device_ns: int | None = None
    """When it was captured by the device's own clock, whatever that counts from; None without one."""
    parts: tuple[tuple[str, Roi], ...] = ()
    """The parts it shows and where, as far as a camera knows: a simulated belt does."""


class Camera(Protocol):
    """An opened camera."""

    live: bool
    """Frames come when they come. False: the source waits for its reader, so nothing is ever lost."""
    picture_size: Size | None
    """Size of the pictures to come; None when it is not known or not the same for all."""

    def grab(self) -> Picture | None:
        """Wait for the next frame; None when the source has ended.

        Raises:
            BadPicture: this frame could not be read; call again for the next.
            CameraFailed: no more frames will come.
        """
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


@dataclass(frozen=True, slots=True)
class LocateSettings:
    """How parts are brought to the place that the model knows them in."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    reference: Annotated[str, MinLen(1), MaxLen(4096)]
    """File of ``inspectctl locate teach``."""
    not_found: Literal["fault", "reject"] = "fault"
    """What becomes of a picture that does not show the part. As a reject it is judged as it lies, so that it
    has a score and a place in the archive, and is rejected whatever its score."""
    parts: Annotated[int, Ge(1), Le(MOST_PARTS)] = 1
    """So many lie in each picture, as in a tray: each is a frame of its own. One that is missing counts as
    not found."""


@dataclass(frozen=True, slots=True)
class Present:
    """How a free-running camera finds the parts in its pictures: what differs from the empty belt."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    min_area: Annotated[float, Gt(0), Le(1)] = 0.004
    """Share of the picture (of ``roi``) that a part covers at least; what is smaller is dirt."""
    max_area: Annotated[float, Gt(0), Le(1)] | None = None
    """Share that it covers at most: what is larger is a fault, such as parts that touch."""
    contrast: Annotated[float, Gt(0), Le(255)] = 12.0
    """Grey levels by which a part differs from the belt at least."""

    def __post_init__(self) -> None:
        if self.max_area is not None and self.max_area <= self.min_area:
            raise ValueError(
                f"max_area: found {self.max_area:g}, expected more than min_area, {self.min_area:g}"
            )


@dataclass(frozen=True, slots=True)
class Trigger:
    """What says that a part is in view; each trigger has one verdict."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    by: Literal["software", "hardware", "gpio", "modbus", "motion"]
    """``software``: ``inspectctl trigger`` or a message; ``hardware``: a wire to the camera; ``gpio`` and
    ``modbus``: an input, for which the picture nearest in time is taken; ``motion``: as ``present``."""
    window_ms: Annotated[float, Gt(0), Le(60_000)] = 200.0
    """A picture is captured at most so long before or after its trigger."""
    apart_ms: Annotated[float, Ge(0), Le(60_000)] = 20.0
    """Triggers that follow sooner are doubles: faults."""
    delay_ms: Annotated[float, Ge(0), Le(60_000)] = 0.0
    """How long after the trigger the part is in view; hardware: the camera waits so long."""
    silent_after_s: Annotated[float, Gt(0), Le(1_000_000)] | None = None
    """No trigger for so long is a fault, and trouble in health."""
    line: int | str | None = None
    """Hardware: the camera's input, such as ``Line1``; gpio: number or name of the line."""
    edge: Literal["rising", "falling"] = "rising"
    """On which the trigger comes; not of software and motion."""
    exposure_us: Annotated[float, Gt(0), Le(60_000_000)] | None = None
    """Hardware: exposure time."""
    strobe: Annotated[str, MinLen(1), MaxLen(100)] | None = None
    """Hardware: the camera's output that is on while it exposes, such as ``Line2``."""
    chip: Annotated[str, MinLen(1), MaxLen(4096)] = "/dev/gpiochip0"
    """Gpio: the chip."""
    debounce_ms: Annotated[float, Ge(0), Le(1000)] = 0.0
    """Gpio: the kernel passes over edges that follow within so long."""
    address: Annotated[str, MinLen(1), MaxLen(300)] | None = None
    """Modbus: ``HOST`` or ``HOST:PORT`` of the device."""
    input: Annotated[int, Ge(0), Le(65_535)] | None = None
    """Modbus: number of the discrete input, from 0."""
    unit: Annotated[int, Ge(0), Le(255)] = 1
    """Modbus: number of the device behind the address."""
    poll_ms: Annotated[float, Ge(1), Le(1000)] = 5.0
    """Modbus: how often the input is read."""

    def __post_init__(self) -> None:
        for key, kinds in _TRIGGER_KEYS.items():
            default = self.__dataclass_fields__[key].default
            if getattr(self, key) != default and self.by not in kinds:
                raise ValueError(f"{key}: is of by: {' or '.join(kinds)}; found by: {self.by}")
        wanted = {"gpio": ("line",), "modbus": ("address", "input")}.get(self.by, ())
        for key in wanted:
            if getattr(self, key) is None:
                raise ValueError(f"{key}: missing; expected it beside by: {self.by}")
        if self.line == "" or (isinstance(self.line, int) and self.line < 0):
            raise ValueError(f"line: found {self.line!r}, expected a number from 0, or a name")
        if self.by == "hardware" and isinstance(self.line, int):
            raise ValueError(
                f"line: found {self.line}, expected the name of the camera's input, such as Line1"
            )
        if self.address is not None:
            self.host_and_port()

    def host_and_port(self) -> tuple[str, int]:
        """Give where the Modbus device is.

        Raises:
            ValueError: the address is no such place.
        """
        host, _, port = (self.address or "").partition(":")
        number = (
            int(port) if port.isascii() and port.isdigit() else 0 if port or ":" in str(self.address) else 502
        )
        if not host or not 0 < number < 65_536:
            raise ValueError(f"address: found {self.address}, expected HOST or HOST:PORT")
        return host, number


_TRIGGER_KEYS: Final = {
    "line": ("hardware", "gpio"),
    "edge": ("hardware", "gpio", "modbus"),
    "exposure_us": ("hardware",),
    "strobe": ("hardware",),
    "chip": ("gpio",),
    "debounce_ms": ("gpio",),
    "address": ("modbus",),
    "input": ("modbus",),
    "unit": ("modbus",),
    "poll_ms": ("modbus",),
}
"""Keys that not every kind of trigger has."""


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One entry under ``cameras:`` in the config."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    source: Annotated[str, MinLen(1), MaxLen(4096)]
    """``/dev/video0``, a video file, a folder of images, an ``rtsp://`` or ``http://`` address of a stream or
    of snapshots, ``aravis://DEVICE`` or ``simulated://?seed=1&defects=0.1``."""
    roi: Roi | None = None
    """The part of the picture that is judged; the whole picture when absent."""
    tiles: Tiles | None = None
    """How ``roi`` is cut into tiles, each of which the engine sees as one frame; as one frame when absent."""
    locate: LocateSettings | None = None
    """By what each part is brought to its place; ``roi`` then lies in the reference's picture."""
    mask: Annotated[str, MinLen(1), MaxLen(4096)] | None = None
    """File that says where to look in its pictures, or with ``locate`` in the reference's."""
    fps: Annotated[float, Ge(0.0001), Le(10_000)] | None = None
    """V4L2 and Aravis: the rate asked of the device. Files, folders, snapshot addresses and simulated lines:
    frames come at this rate whether or not the daemon keeps up; without it each waits until there is room."""
    width: Annotated[int, Gt(0), Le(65_536)] | None = None
    """V4L2 and Aravis: the picture's width asked of the device, in pixels."""
    height: Annotated[int, Gt(0), Le(65_536)] | None = None
    """V4L2 and Aravis: the picture's height asked of the device, in pixels."""
    features: Annotated[dict[str, bool | int | float | str], MaxLen(100)] | None = None
    """To set in this order. Aravis: GenICam features, such as ``{ExposureTime: 5000, TriggerMode: On}``;
    V4L2: controls, such as ``{auto_exposure: 1, gain: 20}``."""
    loop: bool = False
    """Files and folders: start again at the end."""
    waiting: Annotated[int, Ge(1), Le(1024)] = 16
    """Frames that may wait for a lane; when one more comes, the oldest becomes a fault verdict."""
    stalled_after_s: Annotated[float, Gt(0), Le(1_000_000)] | None = None
    """A camera that delivers nothing for so long is restarted. Absent for cameras triggered by parts, which
    may rightly be silent."""
    frozen_after: Annotated[int, Ge(2)] | None = None
    """So many identical pictures in a row are a frozen camera: a fault, and it is restarted."""
    black_below: Annotated[float, Gt(0), Le(255)] | None = None
    """A picture whose mean grey level, 0 to 255, is lower is black: a fault."""
    max_mb: Annotated[int, Gt(0), Le(1_000_000_000)] | None = None
    """A camera process that uses more memory than this, beside the frame slots, is restarted."""
    present: Present | None = None
    """Take one picture of each part that passes, and none of the empty belt; every picture when absent."""
    trigger: Trigger | None = None
    """What says that a part is in view; every picture is judged when absent."""
    cores: Cores | None = None
    """Cores of the machine that its process keeps to; those of the line when absent."""

    def __post_init__(self) -> None:
        self._check_trigger()
        if self.tiles is None:
            return
        if self.roi is None:
            raise ValueError("tiles: found no roi beside it, expected one: it is what is cut into tiles")
        try:
            self.grid()
        except InputError as error:
            raise ValueError(f"tiles: {error}") from error

    def _check_trigger(self) -> None:
        trigger = self.trigger
        if trigger is None:
            return
        if self.present is not None and trigger.by != "motion":
            raise ValueError(f"present: found it beside trigger.by: {trigger.by}, expected one of the two")
        if trigger.by == "hardware" and not self.source.startswith(("aravis://", "/dev/")):
            raise ValueError(
                f"trigger.by: found hardware for {masked(self.source)}, expected it with an aravis:// source "
                "or a device under /dev"
            )

    @property
    def looked_for(self) -> Present | None:
        """How parts are found in the pictures; None when nobody looks for them there."""
        by_motion = self.trigger is not None and self.trigger.by == "motion"
        return self.present or (Present() if by_motion else None)

    @property
    def chooses(self) -> bool:
        """Whether only some of its pictures are judged."""
        return self.present is not None or self.trigger is not None

    def grid(self) -> TileGrid | None:
        """Lay the tiles over the region of interest; None without tiles."""
        if self.tiles is None or self.roi is None:
            return None
        return TileGrid(self.tiles, Size(self.roi.height, self.roi.width))

    @property
    def parts(self) -> int:
        """Number of frames that each picture gives."""
        return 1 if self.locate is None else self.locate.parts

    def slot_shape(self, size: Size) -> tuple[int, ...]:
        """Give the shape of what an engine sees of one picture, from the size of the engine's input."""
        grid = self.grid()
        return (*size, 3) if grid is None else (len(grid), *size, 3)
