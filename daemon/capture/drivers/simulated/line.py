import math
from functools import lru_cache
from typing import Final, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.capture.drivers.simulated import engraving
from daemon.capture.drivers.simulated.belt import Plane, belt
from daemon.capture.drivers.simulated.damage import Seat, dent, scratch, stain
from daemon.capture.drivers.simulated.flange import BOLT_CIRCLE, BOLTS, LIGHT, STRIKES, Flange, tool_marks
from daemon.capture.drivers.simulated.part import KINDS, Part
from foundation.errors import InputError
from pictures.frames import Frame

SMALLEST: Final = 64
"""Pixels: in a smaller frame the part's features vanish."""
LARGEST: Final = 4096
"""Pixels: a larger frame would take gigabytes."""

_DAMAGE: Final = {"scratch": scratch, "dent": dent, "stain": stain}
_RADIUS: Final = 0.43  # of the part, as a share of the frame's short side
_WIDEST_SHIFT: Final = 0.006  # of the part from the middle, as a share of the frame's short side
_TINT: Final = (1.03, 1.0, 0.975)  # blue, green, red: the lamp is a little cold
_COARSE: Final = 4  # light changes slowly over the picture: it is computed on every fourth pixel
_BAND: Final = 64  # rows of floats that fit into the processor's nearer caches
_NOISE_SHIFTS: Final = 97


class SimulatedLine:
    """A camera over a belt that brings machined flanges, one frame per part.

    Every frame is a pure function of the seed and the part's index: neither the order of calls nor the
    process matters. A defect has its own random stream, so the same seed and index at ``defects=0``
    shows the same part without its defect.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        defects: float = 0.0,
        kinds: str = "local",
        width: int = 512,
        height: int = 512,
    ) -> None:
        """Set up the line; what all parts share is drawn once per frame size and process.

        Args:
            seed: which parts come. The line itself (belt, tools, lamp) is the same for all seeds.
            defects: share of defective parts, 0 to 1. A part defective at one share is so at any larger.
            kinds: of defects, a key of `KINDS`.
            width: of a frame, in pixels.
            height: of a frame, in pixels.

        Raises:
            InputError: a value is out of its range.
        """
        if seed < 0:
            raise InputError(f"seed: found {seed}; expected 0 or more")
        if not 0 <= defects <= 1:
            raise InputError(f"defects: found {defects}; expected a share from 0 to 1")
        if kinds not in KINDS:
            raise InputError(f"kinds: found {kinds!r:.40}; expected {', '.join(KINDS)}")
        for side, pixels in (("width", width), ("height", height)):
            if not SMALLEST <= pixels <= LARGEST:
                raise InputError(f"{side}: found {pixels}; expected {SMALLEST} to {LARGEST} pixels")
        self._seed = seed
        self._defects = defects
        self._kinds = KINDS[kinds]
        self._scene = _scene(width, height)
        self._phases = np.random.default_rng((seed,)).uniform(0, math.tau, 4)

    def frame(self, index: int) -> tuple[Frame, Part]:
        """Take the picture of one part.

        Args:
            index: the part's number on the line, from 0.

        Returns:
            height×width×3 uint8 BGR, and the truth about the part.

        Raises:
            ValueError: the index is negative.
        """
        rng, picture, _, part = self._lit(index, None)
        return self._scene.exposed(picture, rng), part

    def lying(self, index: int, turn: float) -> tuple[Frame, NDArray[np.uint8], Part]:
        """Draw one part as it lies on the belt, before the sensor, for who puts it into a larger picture.

        Args:
            index: the part's number on the line, from 0.
            turn: how it lies, in radians.

        Returns:
            height×width×3 uint8 BGR; where it shows metal (height×width uint8, 255 there); and the truth.
        """
        return self._lit(index, turn)[1:]

    def _lit(
        self, index: int, turn: float | None
    ) -> tuple[np.random.Generator, Frame, NDArray[np.uint8], Part]:
        # One stream for the part and one for its defect, so that a defect changes nothing else.
        rng = np.random.default_rng((self._seed, index, 0))
        fate = np.random.default_rng((self._seed, index, 1))
        defect = self._kinds[fate.integers(len(self._kinds))] if fate.random() < self._defects else None

        pose = self._scene.pose(rng)
        if turn is not None:
            pose = pose._replace(turn=turn)
        holes, text, turned, where = _machining(defect, fate)
        light = self._light(index, rng)
        picture, cover = self._scene.lit(pose, light, (holes, text, turned), rng)
        place = None if where is None else pose.place(where)
        if defect in _DAMAGE:
            place = _DAMAGE[defect](picture, Seat(pose.x, pose.y, pose.radius, cover), fate)
        return rng, picture, cover, Part(index, defect, place)

    def _light(self, index: int, rng: np.random.Generator) -> "_Light":
        """Drift over some hundred parts (the lamp warms, somebody moves it), flicker from part to part."""

        def wave(period: float, at: int) -> float:
            return math.sin(math.tau * index / period + self._phases[at])

        return _Light(
            brightness=1 + 0.045 * wave(241, 0) + 0.02 * wave(67, 1) + rng.normal(0, 0.006),
            turn=math.radians(9) * wave(173, 2),
            gradient=0.09 + 0.03 * wave(109, 3),
        )


class _Light(NamedTuple):
    brightness: float  # 1 on average
    turn: float  # of the lamp's direction from its usual one, in radians
    gradient: float  # how much brighter the lamp's side of the picture is than its middle


class _Pose(NamedTuple):
    x: float  # of the part's centre, in pixels
    y: float
    turn: float  # in radians
    radius: float  # in pixels
    scale: float  # of the radius over the usual one

    def place(self, spot: tuple[float, float]) -> tuple[int, int]:
        """From the part's coordinates, in radii, to the pixel of the frame."""
        cos, sin = math.cos(self.turn) * self.radius, math.sin(self.turn) * self.radius
        return round(self.x + cos * spot[0] - sin * spot[1]), round(self.y + sin * spot[0] + cos * spot[1])

    def affine(self, centre: float, further: float = 0.0, zoom: float = 1.0) -> NDArray[np.float64]:
        """2×3, from layers whose centre is at (centre, centre), turned and zoomed further, to the frame."""
        cos = math.cos(self.turn + further) * self.scale * zoom
        sin = math.sin(self.turn + further) * self.scale * zoom
        return np.array(
            [[cos, -sin, self.x - (cos - sin) * centre], [sin, cos, self.y - (sin + cos) * centre]]
        )


class _Scene:
    """What all frames of one size share, and how a frame is put together from it."""

    def __init__(self, width: int, height: int) -> None:
        rng = np.random.default_rng((width, height))
        self.width, self.height = width, height
        self.short = min(width, height)
        scale = self.short / 512
        self._flange = Flange(_RADIUS * self.short)
        self._marks = [tool_marks(self._flange.radius, rng) for _ in range(4)]
        length = 3 * width
        loop = belt(length, height + 2 * round(8 * scale), scale, rng)
        self._belt = np.concatenate((loop, loop[:, :width]), axis=1)  # so that every crop is one piece
        shape = (height + _NOISE_SHIFTS, width + _NOISE_SHIFTS, 3)
        # All channels share the light, so part of the noise is grey.
        noise = 1.7 * rng.standard_normal(shape, np.float32)
        noise += 1.3 * rng.standard_normal((*shape[:2], 1), np.float32)
        self._noise = np.rint(noise).clip(-127, 127).astype(np.int8)
        y = (np.arange(-(-height // _COARSE), dtype=np.float32) + 0.5) * _COARSE - 0.5
        x = (np.arange(-(-width // _COARSE), dtype=np.float32) + 0.5) * _COARSE - 0.5
        self._y, self._x = y[:, None], x[None, :]

    def pose(self, rng: np.random.Generator) -> _Pose:
        """Draw how the part lies on the belt and when the trigger fired."""
        shift = rng.normal(0, _WIDEST_SHIFT / 2.5, 2).clip(-_WIDEST_SHIFT, _WIDEST_SHIFT) * self.short
        scale = 1 + float(np.clip(rng.normal(0, 0.002), -0.005, 0.005))
        return _Pose(
            x=(self.width - 1) / 2 + shift[0],
            y=(self.height - 1) / 2 + shift[1],
            turn=math.radians(np.clip(rng.normal(0, 0.4), -1, 1)),
            radius=scale * self._flange.radius,
            scale=scale,
        )

    def lit(
        self,
        pose: _Pose,
        light: _Light,
        machined: tuple[tuple[tuple[float, float], ...], str, float],
        rng: np.random.Generator,
    ) -> tuple[Frame, NDArray[np.uint8]]:
        """Put a part on the belt under the lamp.

        Args:
            pose: how it lies.
            light: of the lamp.
            machined: its bolt holes, its engraving and how far this is turned.
            rng: of the part.

        Returns:
            The picture before the sensor, and where it shows metal (H×W uint8, 255 there).
        """
        size = (self.width, self.height)
        layers = self._flange.machined(int(rng.integers(STRIKES)), *machined)
        seen = cv2.warpAffine(layers, pose.affine(self._flange.centre), size, borderValue=(0, 0, 255, 0))
        metal, cover, shade, face = cast(list[NDArray[np.uint8]], cv2.split(seen))
        turned = self._marks[rng.integers(len(self._marks))]
        turn, zoom = rng.uniform(0, math.tau), rng.uniform(0.96, 1.04)
        grey = cast(Plane, cv2.warpAffine(turned, pose.affine(self._flange.centre, turn, zoom), size))
        glint, sheen, lamp = self._light(pose, light, depth=rng.uniform(0.85, 1.15))
        belt = self._travelled(rng)
        for top in range(0, self.height, _BAND):
            rows = slice(top, top + _BAND)
            band = grey[rows]
            # The face shines and shows its tool marks: metal · (1 + face · (marks · glint + sheen)).
            band *= glint[rows]
            band += sheen[rows]
            band *= _share(face[rows])
            band += 1
            band *= metal[rows].astype(np.float32)
            # Metal over belt, both under the lamp.
            ground = belt[rows] * _share(shade[rows])
            band -= ground
            band *= _share(cover[rows])
            band += ground
            band *= lamp[rows]
        picture = cv2.merge([cv2.convertScaleAbs(grey, alpha=tint) for tint in _TINT])
        return cast(Frame, picture), cover

    def exposed(self, picture: Frame, rng: np.random.Generator) -> Frame:
        """Blur as the lens does and add the sensor's noise."""
        soft = cv2.GaussianBlur(picture, (3, 3), 0.55 + 0.1 * rng.random())
        top, left = rng.integers(_NOISE_SHIFTS, size=2)
        noise = self._noise[top : top + self.height, left : left + self.width]
        return cast(Frame, cv2.add(soft, noise, dtype=cv2.CV_8U))

    def _travelled(self, rng: np.random.Generator) -> Plane:
        """The piece of the belt that lies below the camera."""
        top = rng.integers(self._belt.shape[0] - self.height + 1)
        left = rng.integers(self._belt.shape[1] - self.width + 1)
        return self._belt[top : top + self.height, left : left + self.width]

    def _light(self, pose: _Pose, light: _Light, depth: float) -> tuple[Plane, Plane, Plane]:
        """How much tool marks show, how much turned metal shines, how much light falls (all H×W float32).

        Turning leaves circular grooves, so metal shines where the radius points to the lamp: two lobes.
        """
        x, y = self._x - np.float32(pose.x), self._y - np.float32(pose.y)
        towards = complex(*LIGHT) * complex(math.cos(light.turn), math.sin(light.turn))
        near = x * np.float32(towards.real) + y * np.float32(towards.imag)
        squared = x * x + y * y
        lobes = (near * near / (squared + 1)) ** 3  # cos⁶ of the angle to the lamp
        unit = np.float32(1 / self.short)
        lamp = light.brightness * (1 + 2 * light.gradient * unit * near - 0.20 * unit * unit * squared)
        return (
            self._fine(depth * (0.025 + 0.035 * lobes)),
            self._fine(0.52 * (lobes - 0.30)),
            self._fine(lamp),
        )

    def _fine(self, coarse: NDArray[np.floating]) -> Plane:
        # Resized by a whole factor, then cropped, so that no size shifts the light.
        rows, columns = coarse.shape
        fine = cv2.resize(coarse, (columns * _COARSE, rows * _COARSE), interpolation=cv2.INTER_LINEAR)
        return cast(Plane, fine[: self.height, : self.width])


def _share(levels: NDArray[np.uint8]) -> Plane:
    return np.multiply(levels, np.float32(1 / 255), dtype=np.float32)


# A process rarely shows more than two sizes; cameras of one size share the drawing.
_scene = lru_cache(maxsize=2)(_Scene)


def _machining(
    defect: str | None, fate: np.random.Generator
) -> tuple[tuple[tuple[float, float], ...], str, float, tuple[float, float] | None]:
    """Decide what the machine does to a part.

    Returns:
        Centres of the bolt holes, the engraving, how far this is turned around the bore, and where it went
        wrong (None when it did not), in radii and radians.
    """
    holes, text, turn = BOLTS, engraving.TEXT, 0.0
    middle = (len(text) - 1) / 2
    bolt = int(fate.integers(len(BOLTS)))
    others = tuple(hole for hole in BOLTS if hole != BOLTS[bolt])
    where: tuple[float, float] | None = None
    match defect:
        case "missing-hole":
            holes, where = others, BOLTS[bolt]
        case "misplaced-hole":
            moved = math.atan2(*BOLTS[bolt][::-1]) + fate.choice((-1, 1)) * fate.uniform(0.085, 0.16)
            where = _on_circle(moved, BOLT_CIRCLE + fate.uniform(-0.03, 0.03))
            holes = (*others, where)
        case "wrong-engraving":
            text, at = _wrong_text(fate)
            where = engraving.place(at, len(text))
        case "extra-hole":
            where = _between(bolt)
            holes = (*BOLTS, where)
        case "hole-elsewhere":
            where = _between(bolt + int(fate.integers(1, len(BOLTS) - 1)))
            holes = (*others, where)
        case "swapped-labels":
            first, _, second = text.partition("-")
            text = f"{second}-{first}"
            where = engraving.place(middle, len(text))
        case "turned":  # by a whole number of holes, so that these are where they belong
            turn = math.tau * int(fate.integers(1, len(BOLTS))) / len(BOLTS)
            where = engraving.place(middle, len(text), turn)
    return holes, text, turn, where


def _between(bolt: int) -> tuple[float, float]:
    """Give the middle between a bolt hole and the next."""
    return _on_circle(math.tau * (bolt + 1) / len(BOLTS), BOLT_CIRCLE)


def _on_circle(turn: float, out: float) -> tuple[float, float]:
    return out * math.cos(turn), out * math.sin(turn)


def _wrong_text(fate: np.random.Generator) -> tuple[str, float]:
    """Another part's number, or an engraving that stopped early, and the middle of what is wrong."""
    right = engraving.TEXT
    if fate.random() < 0.4:
        length = int(fate.integers(len(right) - 5, len(right) - 2))
        return right[:length].ljust(len(right)), (length + len(right) - 1) / 2
    wrong = [str((int(digit) + fate.integers(1, 10)) % 10) for digit in right[-4:]]
    return right[:-4] + "".join(wrong), len(right) - 2.5
