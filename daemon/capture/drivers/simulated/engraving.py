"""Dot-peen marking: a pin strikes each character as a matrix of 5×7 pits."""

import math
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from daemon.capture.drivers.simulated.belt import Plane

TEXT: Final = "FL80-2047"
"""What stands on a good part."""

_ROWS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "-": "00000 00000 00000 11111 00000 00000 00000",
    " ": "00000 00000 00000 00000 00000 00000 00000",
}

# Shares of the flange's radius.
PITCH: Final = 0.0270
"""Distance of neighbouring dots."""
_RADIUS: Final = 0.455  # of the text's middle line
_ADVANCE: Final = 6.2  # dots from one character to the next


def engrave(
    metal: Plane,
    text: str,
    *,
    centre: float,
    radius: float,
    light: tuple[float, float],
    turn: float = 0.0,
    rng: np.random.Generator,
) -> None:
    """Strike a text into the metal, in place: pits with a dark near wall and a bright far wall.

    Args:
        metal: H×W float32, grey levels.
        text: digits, letters of `TEXT`, and blanks for characters that are not struck.
        centre: x and y of the part's centre, in pixels.
        radius: of the flange, in pixels.
        light: unit vector (x, y) towards the light.
        turn: of the text around the centre, in radians.
        rng: the pin wanders a little and does not strike equally hard. It is used alike whatever the
            text, so that texts of one length differ only where their characters do.
    """
    struck = np.concatenate([_matrix(character) for character in text])
    diameter = 1.15 * PITCH * radius
    wander = rng.normal(0, 0.05 * diameter, (len(struck), 2))
    depth = rng.normal(1, 0.08, len(struck)).clip(0.7, 1.3)
    spots = _places(len(text))
    if turn:
        cos, sin = math.cos(turn), math.sin(turn)
        spots = spots @ np.array([[cos, sin], [-sin, cos]])
    places = (spots * radius + centre + wander)[struck]

    reach = math.ceil(1.25 * diameter)
    corner = np.floor(places).astype(int) - reach
    grid = np.arange(2 * reach + 2)
    x, y = corner[:, :1] + grid, corner[:, 1:] + grid
    sigma = 0.42 * diameter
    u = ((x - places[:, :1]) / sigma).astype(np.float32)[:, None, :]
    v = ((y - places[:, 1:]) / sigma).astype(np.float32)[:, :, None]
    pit = np.exp(-u * u / 2) * np.exp(-v * v / 2)
    wall = u * np.float32(62 * light[0]) + v * np.float32(62 * light[1])
    levels = depth[struck, None, None].astype(np.float32) * pit * (95 + wall)
    # Pits overlap, so that plain assignment would lose some.
    np.subtract.at(metal, (y[:, :, None], x[:, None, :]), levels)


def place(at: float, length: int, turn: float = 0.0) -> tuple[float, float]:
    """Give the middle (x, y) of a text's character, in radii of the flange.

    Args:
        at: position in the text, from 0; between two characters when it is no whole number.
        length: of the text.
        turn: of the text around the centre, in radians.
    """
    turn += _ADVANCE * (at - (length - 1) / 2) * PITCH / _RADIUS
    return _RADIUS * math.sin(turn), -_RADIUS * math.cos(turn)


@cache
def _matrix(character: str) -> NDArray[np.bool_]:
    """Which of the 35 dots are struck, row by row."""
    return np.array([bit == "1" for bit in _ROWS[character].replace(" ", "")])


@cache
def _places(length: int) -> NDArray[np.float64]:
    """Where all dots of a text lie, (35·length)×2, along an arc over the centre, in radii of the flange."""
    at, row, column = np.mgrid[0:length, 0:7, 0:5].reshape(3, -1)
    turn = (column - 2 + _ADVANCE * (at - (length - 1) / 2)) * PITCH / _RADIUS
    out = _RADIUS - (row - 3) * PITCH
    return np.column_stack((out * np.sin(turn), -out * np.cos(turn)))
