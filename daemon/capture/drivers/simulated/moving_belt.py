import math
from typing import Final, NamedTuple, cast

import cv2
import numpy as np

from daemon.capture.drivers.simulated.belt import belt
from daemon.capture.drivers.simulated.line import LARGEST, SMALLEST, SimulatedLine
from daemon.capture.drivers.simulated.part import Part
from daemon.capture.drivers.simulated.traffic import Coming, Traffic
from foundation.errors import InputError
from pictures.frames import Frame, Roi

_ROOM: Final = 1 / 0.86  # side of the picture in which a part is drawn, in its diameters
_NOISE_SHIFTS: Final = 97
_LOOP: Final = 4  # picture widths until the belt comes round
_SHUTTER: Final = 0.1  # share of the time between two frames in which a picture is exposed
_TINT: Final = (1.03, 1.0, 0.975)  # of the lamp, as on the simulated line


class InView(NamedTuple):
    """A part of which something is seen."""

    part: Part
    """Its defect's place is in pixels of this picture."""
    box: Roi
    """What of it lies inside the picture."""
    whole: bool


class MovingBelt:
    """A free-running camera over a belt that brings flanges at random times, places and angles.

    Frames come one after the other; each is a pure function of the arguments and its number.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        defects: float = 0.0,
        kinds: str = "local",
        width: int = 320,
        height: int = 240,
        diameter: int = 64,
        speed: float = 12.0,
        stops: float = 0.1,
        parts: int | None = None,
        halt: int | None = None,
    ) -> None:
        """Set up the belt.

        Args:
            seed: of parts, times and places.
            defects: share of defective parts, 0 to 1.
            kinds: of defects, a key of `KINDS`.
            width: of a frame along the travel, in pixels.
            height: of a frame, in pixels.
            diameter: of a part, in pixels.
            speed: of the belt on average, in pixels per frame.
            stops: share of the time in which it stands, roughly.
            parts: how many come; None: for ever.
            halt: from this frame on the belt stands for a hundred frames, as soon as a part is in the middle.

        Raises:
            InputError: a value is out of its range.
        """
        for side, pixels in (("width", width), ("height", height)):
            if not SMALLEST <= pixels <= LARGEST:
                raise InputError(f"{side}: found {pixels}; expected {SMALLEST} to {LARGEST} pixels")
        room = math.ceil(_ROOM * diameter)
        if room < SMALLEST or diameter + 10 > min(width, height):
            least, most = math.floor(SMALLEST / _ROOM), min(width, height) - 10
            raise InputError(f"diameter: found {diameter}; expected {least} to {most} pixels")
        if not 0 < speed <= width - diameter - 1:
            raise InputError(
                f"speed: found {speed:g}; expected above 0, and at most {width - diameter - 1} pixels per "
                "frame, so that each part is seen whole"
            )
        if not 0 <= stops <= 0.9:
            raise InputError(f"stops: found {stops:g}; expected a share from 0 to 0.9")
        self._line = SimulatedLine(seed=seed, defects=defects, kinds=kinds, width=room, height=room)
        self.traffic = Traffic(
            seed,
            width=width,
            height=height,
            diameter=diameter,
            speed=speed,
            stops=stops,
            parts=parts,
            halt=halt,
        )
        self._seed, self._room, self._width, self._height = seed, room, width, height
        self._diameter = diameter
        rng = np.random.default_rng((width, height, 1))
        scale = diameter / 440
        texture = belt(_LOOP * width, height, max(scale, 0.25), rng)
        texture = np.concatenate((texture, texture[:, :width]), axis=1)  # so that every crop is one piece
        self._belt = np.stack([texture * tint for tint in _TINT], axis=2).clip(0, 255).astype(np.uint8)
        noise = 2.0 * rng.standard_normal((height + _NOISE_SHIFTS, width + _NOISE_SHIFTS, 3), np.float32)
        self._noise = np.rint(noise).astype(np.int8)
        self._drawn: dict[int, tuple[Frame, Part]] = {}  # BGR and cover of the parts in view

    def advance(self) -> bool:
        """Go on to the next frame; False when all parts have come and gone."""
        return self.traffic.advance()

    def draw(self) -> Frame:
        """Draw the present frame, height×width×3 uint8 BGR."""
        traffic = self.traffic
        left = -round(traffic.position) % (_LOOP * self._width)  # what lies on it moves to the right
        picture = self._belt[:, left : left + self._width].copy()
        for coming in traffic.in_view:
            self._put(picture, coming)
        self._drawn = {
            coming.index: self._drawn[coming.index]
            for coming in traffic.in_view
            if coming.index in self._drawn
        }
        blur = round(traffic.speed * _SHUTTER)
        if blur > 1:
            picture = cast(Frame, cv2.blur(picture, (blur, 1)))
        rng = np.random.default_rng((self._seed, traffic.frame, 4))
        top, side = rng.integers(_NOISE_SHIFTS, size=2)
        noise = self._noise[top : top + self._height, side : side + self._width]
        light = 1 + 0.03 * math.sin(traffic.frame / 140)
        return cast(Frame, cv2.addWeighted(picture, light, noise, 1.0, 0.0, dtype=cv2.CV_8U))

    def in_view(self) -> list[InView]:
        """Tell which parts the present frame shows, and where."""
        shown = []
        for coming in self.traffic.in_view:
            x, y = self.traffic.x(coming), coming.y
            radius = self._diameter / 2
            left, right = max(0, round(x - radius)), min(self._width, round(x + radius) + 1)
            if right <= left:
                continue
            top = round(y - radius)
            part = self._drawing(coming)[1]
            if part.place is not None:
                left_of, above = self._corner(coming)
                part = part._replace(
                    place=(max(0, round(part.place[0] + left_of)), max(0, round(part.place[1] + above)))
                )
            box = Roi(left, top, right - left, round(2 * radius) + 1)
            shown.append(InView(part, box, self.traffic.is_whole(coming)))
        return shown

    def _corner(self, coming: Coming) -> tuple[float, float]:
        """Where the upper left corner of a part's drawing lies in the picture."""
        half = (self._room - 1) / 2
        return self.traffic.x(coming) - half, coming.y - half

    def _drawing(self, coming: Coming) -> tuple[Frame, Part]:
        drawn = self._drawn.get(coming.index)
        if drawn is None:
            picture, cover, part = self._line.lying(coming.index, coming.turn)
            drawn = self._drawn[coming.index] = cast(Frame, cv2.merge((*cv2.split(picture), cover))), part
        return drawn

    def _put(self, picture: Frame, coming: Coming) -> None:
        drawing = self._drawing(coming)[0]
        left, top = self._corner(coming)
        x, y = math.floor(left), math.floor(top)
        side = self._room + 1
        shift = np.array([[1, 0, left - x], [0, 1, top - y]])
        shifted = cv2.warpAffine(drawing, shift, (side, side))
        x0, x1 = max(0, x), min(self._width, x + side)
        y0, y1 = max(0, y), min(self._height, y + side)
        if x0 >= x1:
            return
        seen = shifted[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.float32)
        ground = picture[y0:y1, x0:x1]
        ground[...] = ground + (seen[..., :3] - ground) * (seen[..., 3:] / 255)
