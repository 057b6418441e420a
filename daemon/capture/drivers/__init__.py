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
    """Aravis: GenICam features to set in this order, such as ``{ExposureTime: 5000, TriggerMode: On}``."""
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
    cores: Cores | None = None
    """Cores of the machine that its process keeps to; those of the line when absent."""

    def __post_init__(self) -> None:
        if self.tiles is None:
            return
        if self.roi is None:
            raise ValueError("tiles: found no roi beside it, expected one: it is what is cut into tiles")
        try:
            self.grid()
        except InputError as error:
            raise ValueError(f"tiles: {error}") from error

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
