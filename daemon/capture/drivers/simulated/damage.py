"""Defects that happen to a finished part, drawn into the frame before the sensor sees it."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.capture.drivers.simulated.belt import Plane, smooth_noise
from daemon.capture.drivers.simulated.flange import BORE, LIGHT
from pictures.frames import Frame

_Floats = NDArray[np.floating]


class Seat(NamedTuple):
    """Where the part lies in the frame.

    Attributes:
        x: of the part's centre, in pixels.
        y: of the part's centre, in pixels.
        radius: of the part, in pixels.
        cover: H×W uint8, 255 where the frame shows metal.
    """

    x: float
    y: float
    radius: float
    cover: NDArray[np.uint8]


def scratch(picture: Frame, seat: Seat, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a thin, slightly bent groove: 15 to 40 % of the diameter long, its far wall of the other shade.

    Args:
        picture: H×W×3 uint8, changed in place.
        seat: where the part lies.
        rng: source of place, course, width and strength.

    Returns:
        Its middle (x, y) in pixels.
    """
    length = rng.uniform(0.30, 0.80) * seat.radius
    # Long grooves do not fit between the bolt holes in every direction: look for a course that does.
    for _ in range(60):
        middle = _spot(seat, rng)
        turn = rng.uniform(0, math.pi)
        along = np.array([math.cos(turn), math.sin(turn)])
        across = np.array([-along[1], along[0]])
        t = np.linspace(-1, 1, 25)[:, None]
        bend = rng.uniform(-0.10, 0.10) * length
        course = middle + t * along * length / 2 + (t**2 - 0.3) * across * bend
        at = np.round(course).astype(int).clip(0, (seat.cover.shape[1] - 1, seat.cover.shape[0] - 1))
        if (seat.cover[at[:, 1], at[:, 0]] > 128).mean() > 0.9:
            break
    width = rng.uniform(0.010, 0.018) * seat.radius
    strength = rng.uniform(65, 110)
    patch = _Patch(picture, seat, middle, length / 2 + 6 * width + 3)
    # Distance to the course and position along it, segment by segment.
    gap: Plane = np.full(patch.x.shape, np.inf, dtype=np.float32)
    side = np.zeros_like(gap)
    fade = np.zeros_like(gap)
    for start, end, position in zip(course[:-1], course[1:], t[:-1, 0], strict=True):
        step = end - start
        share = ((patch.x - start[0]) * step[0] + (patch.y - start[1]) * step[1]) / (step @ step)
        share = share.clip(0, 1)
        dx, dy = patch.x - start[0] - share * step[0], patch.y - start[1] - share * step[1]
        distance = np.hypot(dx, dy)
        nearer = distance < gap
        gap = np.where(nearer, distance, gap)
        side = np.where(nearer, dx * across[0] + dy * across[1], side)
        fade = np.where(nearer, 1 - (position + share * (t[1, 0] - t[0, 0])) ** 4, fade)
    groove = np.exp(-np.square(side / width) / 2) * np.exp(-np.square(np.maximum(gap - 3 * width, 0)))
    wall = np.exp(-np.square((side - 2.2 * width) / width) / 2) * (gap < 6 * width)
    shade = -1 if patch.brightness() > 165 or rng.random() < 0.3 else 1
    patch.add(shade * strength * fade.clip(0, 1) * (groove - 0.45 * wall) * (gap < 6 * width))
    return round(middle[0]), round(middle[1])


def dent(picture: Frame, seat: Seat, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a round hollow: its wall towards the light is dark, the far wall bright, its bottom matt.

    Arguments and result as in `scratch`.
    """
    size = rng.uniform(0.050, 0.085) * seat.radius
    middle = _spot(seat, rng, 1.6 * size)
    turn, squeeze = rng.uniform(0, math.pi), rng.uniform(0.7, 1.0)
    patch = _Patch(picture, seat, middle, 3.4 * size)
    dx, dy = patch.x - middle[0], patch.y - middle[1]
    u = (dx * math.cos(turn) + dy * math.sin(turn)) / size
    v = (dy * math.cos(turn) - dx * math.sin(turn)) / (size * squeeze)
    hollow = np.exp(-(u**2 + v**2) / 2)
    slope = (dx * LIGHT[0] + dy * LIGHT[1]) / size
    strength = rng.uniform(65, 100)
    patch.add(-strength * hollow * (1.5 * slope + 0.35))
    return round(middle[0]), round(middle[1])


def stain(picture: Frame, seat: Seat, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a dried blotch, brown or dark, with an uneven outline and a darker rim.

    Arguments and result as in `scratch`.
    """
    size = rng.uniform(0.09, 0.17) * seat.radius
    middle = _spot(seat, rng, size)
    patch = _Patch(picture, seat, middle, 1.7 * size)
    uneven = smooth_noise(patch.x.shape, (0.30 * size, 0.30 * size), rng)
    r = np.hypot(patch.x - middle[0], patch.y - middle[1]) / size
    depth = 1 - r + 0.16 * uneven * (r < 1.3)
    edge = np.maximum(0.10, 1.2 / size)
    blotch = np.clip(depth / edge, 0, 1)
    rim = blotch * np.exp(-np.square(depth / 0.16))
    strength = rng.uniform(0.75, 1.0)
    colour = (0.32, 0.46, 0.64) if rng.random() < 0.6 else (0.42, 0.44, 0.46)
    cover = strength * (0.62 * blotch + 0.38 * rim)
    patch.multiply(1 - cover[:, :, None] * (1 - np.array(colour, dtype=np.float32)))
    return round(middle[0]), round(middle[1])


def _spot(seat: Seat, rng: np.random.Generator, reach: float = 0.0) -> NDArray[np.float64]:
    """Find a place on the metal: nine tenths of the square of half side ``reach`` around it are metal."""
    height, width = seat.cover.shape
    for _ in range(200):
        # Uniform over the ring's area.
        r = math.sqrt(rng.uniform((BORE + 0.08) ** 2, 0.93**2)) * seat.radius
        turn = rng.uniform(0, math.tau)
        x, y = seat.x + r * math.cos(turn), seat.y + r * math.sin(turn)
        left, top = max(int(x - reach), 0), max(int(y - reach), 0)
        around = seat.cover[top : int(y + reach) + 1, left : int(x + reach) + 1]
        if 0 <= x < width and 0 <= y < height and cv2.mean(around)[0] > 0.9 * 255:
            break
    return np.array([x, y])


class _Patch:
    """The square of a picture in which one defect is drawn, and only on its metal."""

    def __init__(self, picture: Frame, seat: Seat, middle: NDArray[np.float64], reach: float) -> None:
        height, width = seat.cover.shape
        left, right = max(int(middle[0] - reach), 0), min(int(middle[0] + reach) + 2, width)
        top, bottom = max(int(middle[1] - reach), 0), min(int(middle[1] + reach) + 2, height)
        self._pixels = picture[top:bottom, left:right]
        self._cover = seat.cover[top:bottom, left:right, None] / np.float32(255)
        self.y, self.x = np.mgrid[top:bottom, left:right].astype(np.float32)

    def brightness(self) -> float:
        """Mean grey level."""
        return float(self._pixels.mean())

    def add(self, levels: _Floats) -> None:
        """Add H×W grey levels."""
        self._write(self._pixels + levels[:, :, None] * self._cover)

    def multiply(self, factors: _Floats) -> None:
        """Multiply with H×W×3 factors."""
        self._write(self._pixels * (1 - (1 - factors) * self._cover))

    def _write(self, pixels: _Floats) -> None:
        self._pixels[:] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
