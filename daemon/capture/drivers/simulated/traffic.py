import math
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

_LEAD_IN: Final = (
    50  # frames before the first part comes into view: whoever watches sees the empty belt first
)
_RAMP: Final = 0.3  # of the difference to the wanted speed, in each frame
_CLEAR: Final = 1.2  # diameters between the middles of two parts
_HALT: Final = 100  # frames that an ordered halt lasts


class Coming(NamedTuple):
    """A part on its way, as it was laid on the belt."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody misses
    at: float
    """Its middle, in pixels from the belt's beginning against the travel."""
    y: float
    """Its middle across the belt, in pixels of the picture."""
    turn: float
    """How it lies, in radians."""


class Traffic:
    """When the belt moves how fast, and what lies on it: parts at random times, places and angles.

    A pure function of its arguments, frame by frame. Speeds change, the belt stops and starts, parts come
    one by one, side by side and not at all for a while; they never touch.
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int,
        height: int,
        diameter: float,
        speed: float,
        stops: float,
        parts: int | None,
        halt: int | None,
    ) -> None:
        """Set up the belt at its beginning.

        Args:
            seed: of everything random.
            width: of the picture along the travel, in pixels.
            height: across.
            diameter: of a part, in pixels.
            speed: on average, in pixels per frame.
            stops: share of the time in which the belt stands, roughly.
            parts: how many come; None: for ever.
            halt: from this frame on the belt stands for a hundred frames, as soon as a part is in the middle.
        """
        self._travel = np.random.default_rng((seed, 2))
        self._laying = np.random.default_rng((seed, 3))
        self._width, self._height, self._diameter = width, height, diameter
        self._speed, self._stops, self._parts, self._halt = speed, stops, parts, halt
        self._coming = self._lay()
        self._next = next(self._coming, None)
        self._wanted, self._left = speed, 0
        self._halted = 0
        self.frame = 0
        """Number of the present frame, from 1; 0 before the first ``advance``."""
        self.position = 0.0
        """How far the belt has come, in pixels."""
        self.speed = speed
        """Pixels since the frame before."""
        self.in_view: list[Coming] = []
        """Parts of which something may be seen, in their order."""

    def advance(self) -> bool:
        """Go on to the next frame; False when all parts have come and gone."""
        if self._next is None and not self.in_view:
            return False
        self.frame += 1
        self.speed = self._next_speed()
        self.position += self.speed
        reach = self._diameter / 2 + 1
        while self._next is not None and self.x(self._next) > -reach:
            self.in_view.append(self._next)
            self._next = next(self._coming, None)
        self.in_view = [part for part in self.in_view if self.x(part) < self._width + reach]
        return True

    def x(self, part: Coming) -> float:
        """Give the middle of a part along the travel, in pixels of the picture."""
        return self.position - part.at

    def is_whole(self, part: Coming) -> bool:
        """Whether all of a part is inside the picture."""
        radius = self._diameter / 2
        return radius <= self.x(part) <= self._width - 1 - radius

    def _next_speed(self) -> float:
        if self._halted:
            self._halted -= 1
            return 0.0
        if self._halt is not None and self.frame >= self._halt and self._is_in_the_middle():
            self._halt, self._halted = None, _HALT - 1
            return 0.0
        if self._left == 0:
            stands = self.frame > _LEAD_IN and self._travel.random() < self._stops
            self._wanted = 0.0 if stands else self._speed * self._travel.uniform(0.6, 1.4)
            self._left = int(self._travel.integers(20, 80))
        self._left -= 1
        speed = self.speed + _RAMP * (self._wanted - self.speed)
        return 0.0 if self._wanted == 0 and speed < 0.05 * self._speed else speed

    def _is_in_the_middle(self) -> bool:
        return any(abs(self.x(part) - self._width / 2) < self._speed for part in self.in_view)

    def _lay(self) -> Iterator[Coming]:
        rng, diameter = self._laying, self._diameter
        margin = diameter / 2 + 3
        at, index = _LEAD_IN * self._speed * 1.4, 0
        lately: deque[Coming] = deque(maxlen=6)
        while self._parts is None or index < self._parts:
            kind = rng.random()
            if kind < 0.3:
                at += rng.uniform(0, 0.5) * diameter  # beside the one before
            elif kind < 0.95:
                at += rng.uniform(1.2, 3.5) * diameter
            else:
                at += rng.uniform(1, 3) * self._width  # an empty belt
            while True:
                y = rng.uniform(margin, self._height - 1 - margin)
                if all(math.hypot(at - other.at, y - other.y) >= _CLEAR * diameter for other in lately):
                    break
                at += 0.2 * diameter
            part = Coming(index, at, y, rng.uniform(0, math.tau))
            lately.append(part)
            yield part
            index += 1
