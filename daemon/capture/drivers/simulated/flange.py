import math
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from daemon.capture.drivers.simulated.belt import Plane, smooth_noise
from daemon.capture.drivers.simulated.engraving import TEXT, engrave

# All lengths are shares of the flange's radius.
BORE: Final = 0.26
HUB: Final = 0.62
BOLT_CIRCLE: Final = 0.795
HOLE: Final = 0.092
CHAMFER: Final = 0.024
MARGIN: Final = 1.14
"""Half the side of the layers: room for the shadow around the part."""

LIGHT: Final = (-math.sqrt(0.5), -math.sqrt(0.5))
"""Unit vector (x, y) towards the light: from the upper left."""

BOLTS: Final = tuple(
    (BOLT_CIRCLE * math.cos(turn), BOLT_CIRCLE * math.sin(turn))
    for turn in (math.tau * (bolt + 0.5) / 6 for bolt in range(6))
)
"""Centres (x, y) of the six bolt holes."""

STRIKES: Final = 8
"""In how many ways the same text may come out of the marking machine."""

METAL, COVER, SHADE, FACE = range(4)
"""Channels of the layers, all 0 to 255: grey level of the metal; whether there is metal; the light that
reaches the belt; whether the surface is flat and turned, which is where it shines and shows tool marks."""


class Flange:
    """Draws the part in its own coordinates: layers n×n×4, see `METAL`, with the bore in the middle."""

    def __init__(self, radius: float) -> None:
        """Draw what all parts share.

        Args:
            radius: of the flange, in pixels.
        """
        self.radius = radius
        half = math.ceil(MARGIN * radius)
        self.centre = float(half)
        axis = np.arange(-half, half + 1, dtype=np.float32) / np.float32(radius)
        self._turned = self._draw_turned(axis)
        self._drilled = self._turned.copy()
        for bolt in BOLTS:
            self._drill(self._drilled, bolt)
        self._good = [self._machine(strike, BOLTS, TEXT) for strike in range(STRIKES)]

    def machined(
        self,
        strike: int,
        holes: tuple[tuple[float, float], ...] = BOLTS,
        text: str = TEXT,
        turn: float = 0.0,
    ) -> NDArray[np.uint8]:
        """Draw one part.

        Args:
            strike: 0 to `STRIKES` - 1; how the pin happened to strike the engraving.
            holes: centres (x, y) of the bolt holes, in radii.
            text: the engraving.
            turn: of the engraving around the bore, in radians.

        Returns:
            n×n×4 uint8, see `METAL`; to be read only.
        """
        good = holes == BOLTS and text == TEXT and turn == 0
        return self._good[strike] if good else self._machine(strike, holes, text, turn)

    def _machine(
        self, strike: int, holes: tuple[tuple[float, float], ...], text: str, turn: float = 0.0
    ) -> NDArray[np.uint8]:
        if holes == BOLTS:
            layers = self._drilled.copy()
        else:
            layers = self._turned.copy()
            for hole in holes:
                self._drill(layers, hole)
        rng = np.random.default_rng(strike)
        metal = layers[:, :, METAL]
        engrave(metal, text, centre=self.centre, radius=self.radius, light=LIGHT, turn=turn, rng=rng)
        return np.clip(layers, 0, 255).astype(np.uint8)

    def _draw_turned(self, axis: Plane) -> Plane:
        """Draw the part as it comes from the lathe: no bolt holes, no engraving."""
        x, y = axis[None, :], axis[:, None]
        r = np.hypot(x, y)
        towards = (x * LIGHT[0] + y * LIGHT[1]) / np.maximum(r, 1e-6)  # cosine to the light
        layers = np.empty((*r.shape, 4), dtype=np.float32)

        hub = self._inside(r, HUB)
        metal = 146 + 16 * hub
        # The hub stands above the face: its edge is a cone, and the face lies in its shadow next to it.
        metal *= 1 - 0.22 * np.exp(-np.square((r - HUB - CHAMFER) / 0.03)) * (0.5 - 0.5 * towards)
        face = np.ones_like(r)
        for inner, outer, tilt in (
            (BORE, BORE + 1.3 * CHAMFER, -1.0),
            (HUB, HUB + 0.8 * CHAMFER, 1.0),
            (1 - 1.2 * CHAMFER, 1.0, 1.0),
        ):
            cone = self._inside(r, outer) - self._inside(r, inner)
            metal += cone * (150 + 82 * tilt * towards - metal)
            face -= cone
        layers[:, :, METAL] = metal
        layers[:, :, FACE] = 255 * face
        layers[:, :, COVER] = 255 * (self._inside(r, 1.0) - self._inside(r, BORE))

        # The belt: dark under the bore's wall, and in the shadow that the part throws away from the light.
        thrown = np.hypot(x + 0.030 * LIGHT[0], y + 0.030 * LIGHT[1]) - 1
        outside = 1 - 0.62 * np.exp(-np.square(np.maximum(thrown, 0) / 0.055))
        lit = np.clip((BORE - np.hypot(x + 0.05 * LIGHT[0], y + 0.05 * LIGHT[1])) / 0.16, 0, 1)
        layers[:, :, SHADE] = 255 * np.where(r < HUB, 0.30 + 0.42 * lit, outside)
        return layers

    def _drill(self, layers: Plane, hole: tuple[float, float]) -> None:
        """Drill one through hole with a chamfer, in place."""
        x, y = (self.centre + self.radius * place for place in hole)
        reach = math.ceil((HOLE + CHAMFER) * self.radius) + 2
        left, top = round(x) - reach, round(y) - reach
        patch = layers[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
        u = (np.arange(left, left + patch.shape[1], dtype=np.float32)[None, :] - x) / self.radius
        v = (np.arange(top, top + patch.shape[0], dtype=np.float32)[:, None] - y) / self.radius
        r = np.hypot(u, v)
        towards = (u * LIGHT[0] + v * LIGHT[1]) / np.maximum(r, 1e-6)
        cut = self._inside(r, HOLE + CHAMFER)
        patch[:, :, METAL] += cut * (140 - 84 * towards - patch[:, :, METAL])
        patch[:, :, FACE] *= 1 - cut
        through = self._inside(r, HOLE)
        patch[:, :, COVER] *= 1 - through
        lit = np.clip((HOLE - np.hypot(u + 0.03 * LIGHT[0], v + 0.03 * LIGHT[1])) / 0.05, 0, 1)
        patch[:, :, SHADE] += through * (56 + 76 * lit - patch[:, :, SHADE])

    def _inside(self, r: Plane, limit: float) -> Plane:
        """Cover of a disc, with an edge one pixel wide."""
        return cast(Plane, np.clip((limit - r) * np.float32(self.radius) + np.float32(0.5), 0, 1))


def tool_marks(radius: float, rng: np.random.Generator) -> Plane:
    """Draw the marks that turning leaves: sharp across the radius, long along the circle.

    Args:
        radius: of the flange, in pixels.
        rng: source of the marks.

    Returns:
        n×n float32 around 0, deviation about 1. The part's centre is in the middle, and any rotation
        of it serves another part.
    """
    half = math.ceil(MARGIN * radius)
    turn, rings = 1024, half
    fine = smooth_noise((rings, turn), (0.55, 90), rng)
    arcs = smooth_noise((rings, turn), (0.7, 14), rng)
    coarse = smooth_noise((rings, turn), (max(0.012 * radius, 0.8), 240), rng)
    polar = 0.62 * fine + 0.42 * arcs + 0.62 * coarse
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    r = np.minimum(np.hypot(x, y), rings - 1)
    angle = (np.arctan2(y, x) * np.float32(turn / math.tau)).astype(int) % turn
    below = r.astype(int)
    above = np.minimum(below + 1, rings - 1)
    share = r - below
    return np.asarray((1 - share) * polar[below, angle] + share * polar[above, angle], dtype=np.float32)
