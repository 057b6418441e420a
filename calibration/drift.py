"""Whether parts still look as they did when the calibration was made; and if not, why not.

Each value of a part (``calibration.drift_baseline``) has two cumulative sums (CUSUM; Page, 1954), one
upwards and one downwards, of its distance from the baseline in deviations, less an allowance k. An alarm is
a sum over h. For independent normal values a sum exceeds h about once in exp(2kh) parts. Values of
successive parts may depend on each other, which counts as so many fewer parts: h is ``dependence`` times as
high. The baseline is known from some images only: k has its uncertainty on top. So all sums together raise
a false alarm once in the parts that are asked for, or more rarely.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from calibration.drift_baseline import (
    FIRST_CELL,
    FIRST_REGION,
    FIRST_SPOT,
    SCORE,
    VALUES,
    DriftBaseline,
    Values,
)
from pictures.appearance import (
    BLUE,
    BRIGHTNESS,
    CELLS,
    CONTRAST,
    DOWN,
    NOISE,
    RED,
    RIGHT,
    SHARPNESS,
    SPOTS,
    STATISTICS,
)

Cause = Literal["lamp", "focus", "position", "dirt", "parts"]

PARTS_PER_FALSE_ALARM: Final = 1_000_000
_ALLOWANCES: Final = (0.75, 1.5)
"""Deviations that a mean may be off for ever, of values that do not depend on those before, and of those
that do: what varies slowly lies to one side for a while."""
_DEPENDENCES: Final = (4.0, 20.0)
"""From the first to the second the allowance grows."""
_ONE_SIDED_95: Final = 1.645
_MOST: Final = 6.0
_MOST_OF_A_SPOT: Final = 3.0
"""Deviations by which one part can count, so that a single odd one raises no alarm. There are many spots, and
of few images the deviation of some is known too small."""
_RECENT: Final = 12
"""Parts over which the mean that names the cause goes back, by its weight."""
_USUAL: Final = 250
"""Parts over which the mean that a person can accept goes back: what varies slowly has come round by then."""
_NAMED_AFTER: Final = 30
"""Parts from an alarm of the picture until its cause is named: by then the mean shows it."""
_NAMED_BY_SCORES_AFTER: Final = 250
"""Likewise where scores alone have moved: a slow change of the picture shows in them first."""
_OVER_AFTER: Final = 50
_CEILING: Final = 1.5
"""Of a sum, in h: what is over can be noticed."""
_FEW: Final = 0.06
"""Of the cells, or of the spots: so many may be dirt; more, and it is something else."""
_GRIDS: Final = ((FIRST_CELL, CELLS), (FIRST_SPOT, SPOTS))
"""Places of the picture among the values: the first one, and how many there are along each side."""
_SHOWS: Final = 1.5
"""Deviations of the recent mean that show a cause."""

_SHOWS_SLOWLY: Final = (1.0, 1.5)
"""Likewise where scores alone have moved, of values that do not depend on those before, and of those that do:
what varies slowly lies so far to one side by itself."""
_ON_ITS_WAY: Final = 0.5
"""Of a sum's limit: so much of it is no chance."""

ADVICE: Final[dict[Cause, str]] = {
    "lamp": "clean or replace the lamp, or set its brightness and the exposure as they were",
    "focus": "focus the lens again, and look whether it is fogged or dirty",
    "position": "look whether the camera, its bracket or the stop of the parts was moved, and put it back",
    "dirt": "clean the lens and its window at this place",
    "parts": "look whether these are the parts of the calibration: another lot, material or finish. If they "
    "are good, calibrate on them, or accept them as the new normal",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """What has changed.

    Attributes:
        cause: in one word.
        since: the number, as given to ``observe``, of the part with which it began, as far as the sums show.
        found: the number of the part at which it was named.
        amount: by how much, in words.
        do: what to do.
    """

    cause: Cause
    since: int
    found: int
    amount: str

    @property
    def do(self) -> str:
        """Say what to do."""
        return ADVICE[self.cause]


class DriftMonitor:
    """Watches one product at one camera. Memory is allocated once; belongs to one thread."""

    FEWEST_TO_ACCEPT: Final = 30
    """Parts that must have been seen before what is usual can be told."""

    def __init__(self, baseline: DriftBaseline, parts_per_false_alarm: float = PARTS_PER_FALSE_ALARM) -> None:
        """Begin with the baseline of a calibration.

        Args:
            baseline: what is normal.
            parts_per_false_alarm: a false alarm of any kind comes once in so many parts, or more rarely.
        """
        mean, deviation, dependence = baseline.table()
        self.alarm: Drift | None = None
        """What has changed; None while all is as it was."""
        self.observed = 0
        """Parts so far."""
        self._mean = mean.astype(np.float32)
        self._deviation = deviation.astype(np.float32)
        self._dependence, self._images = dependence, baseline.images
        self._certain = math.log(parts_per_false_alarm * 2 * VALUES)
        self._allowance, self._limit = np.empty((2, VALUES), np.float32)
        self.accepted_from = 0
        """Parts whose mean a person has taken for normal; 0: the calibration's holds."""
        self._allow()
        self._shows = np.interp(dependence, _DEPENDENCES, _SHOWS_SLOWLY)
        self._most = np.full(VALUES, _MOST, np.float32)
        self._most[FIRST_SPOT:] = _MOST_OF_A_SPOT
        self._least = -self._most
        self._size = baseline.size
        self._z, self._clipped, self._step, self._up, self._down = np.zeros((5, VALUES), np.float32)
        self._recent, self._usual = np.zeros((2, VALUES), np.float32)
        self.usual_of = 0
        """Parts whose mean ``accept`` would take for normal."""
        self._since_up, self._since_down = np.zeros((2, VALUES), np.int64)
        self._at_zero = np.empty(VALUES, np.bool_)
        self._alarming = 0
        self._quiet = 0

    def observe(self, number: int, values: Values) -> bool:
        """See the next part.

        Args:
            number: of the part, which names it in ``Drift``.
            values: its ``VALUES``, as ``values_of`` gives them.

        Returns:
            Whether ``alarm`` has changed.
        """
        self.observed += 1
        np.subtract(values, self._mean, out=self._z)
        np.divide(self._z, self._deviation, out=self._z)
        np.clip(self._z, self._least, self._most, out=self._clipped)
        self._sum_up(self._up, self._since_up, number)
        np.negative(self._clipped, out=self._clipped)
        self._sum_up(self._down, self._since_down, number)
        self.usual_of = min(_USUAL, self.usual_of + 1)
        self._average(self._recent, min(_RECENT, self.observed))
        self._average(self._usual, self.usual_of)
        return self._decide(number)

    def accept(self) -> None:
        """Take what is usual now for the new normal: the mean of the last parts, from the alarm on."""
        self._mean += self._usual * self._deviation
        self.accepted_from = self.usual_of
        self._allow()
        self._forget()

    def means(self) -> list[float]:
        """Give what is normal, to be kept."""
        return [float(value) for value in self._mean]

    def restore(self, means: Sequence[float], accepted_from: int) -> None:
        """Take up what ``means`` and ``accepted_from`` were; an earlier version had no means of the spots."""
        self._mean[: len(means)] = means
        self.accepted_from = accepted_from
        self._allow()

    def _allow(self) -> None:
        """Say how far means may be off: for ever, and because what is normal is known from some parts."""
        varying = np.interp(self._dependence, _DEPENDENCES, _ALLOWANCES)
        unknown = 1 / self._images + (1 / self.accepted_from if self.accepted_from else 0)
        self._allowance[:] = varying + _ONE_SIDED_95 * np.sqrt(self._dependence * unknown)
        self._limit[:] = self._dependence * self._certain / (2 * self._allowance)

    def _forget(self) -> None:
        for array in (self._up, self._down, self._recent, self._usual):
            array[:] = 0
        self.alarm, self._alarming, self._quiet, self.observed, self.usual_of = None, 0, 0, 0, 0

    def _average(self, mean: Values, parts: int) -> None:
        """Have the last part count in a mean over so many."""
        np.subtract(self._z, mean, out=self._step)
        np.divide(self._step, parts, out=self._step)
        np.add(mean, self._step, out=mean)

    def _sum_up(self, sums: Values, since: NDArray[np.int64], number: int) -> None:
        np.less_equal(sums, 0, out=self._at_zero)
        np.copyto(since, number, where=self._at_zero)
        np.add(sums, self._clipped, out=sums)
        np.subtract(sums, self._allowance, out=sums)
        np.clip(sums, 0, _CEILING * self._limit, out=sums)

    def _decide(self, number: int) -> bool:
        over = (self._up > self._limit) | (self._down > self._limit)
        if not over.any():
            self._alarming = 0
            self._quiet += 1
            if self.alarm is not None and self._quiet >= _OVER_AFTER:
                self.alarm = None
                return True
            return False
        self._quiet = 0
        by_picture = over[:SCORE].any() or over[FIRST_CELL:].any()
        if self._alarming == 0 and self.alarm is None:
            self.usual_of = 0  # what came before the change is not usual any more
        self._alarming += 1
        if self.alarm is not None:
            return False
        if self._alarming < (_NAMED_AFTER if by_picture else _NAMED_BY_SCORES_AFTER):
            return False
        self.alarm = self._named(over, number)
        return True

    # Naming the cause.

    def _named(self, over: NDArray[np.bool_], number: int) -> Drift:
        recent = self._recent
        cells = np.abs(recent[FIRST_CELL:FIRST_SPOT])
        place, size = float(max(abs(recent[RIGHT]), abs(recent[DOWN]))), float(abs(recent[BRIGHTNESS]))
        blurred = float(-recent[SHARPNESS])
        finish = [abs(recent[BLUE]), abs(recent[RED]), recent[SHARPNESS]]
        if blurred < _SHOWS:  # which takes contrast and noise with it
            finish += [abs(recent[CONTRAST]), abs(recent[NOISE])]
        shown: dict[Cause, float] = {
            "position": place,
            "lamp": size if np.mean(cells > _SHOWS) < 0.3 else 0.0,
            "focus": blurred,
            "dirt": self._most_moved(over)[1] if _one_small_place(over) else 0.0,
            "parts": float(max(finish)),
        }
        cause = max(shown, key=lambda name: shown[name])
        # Where scores alone have moved, a slow change of the picture may be on its way.
        least = float(self._shows[_values_of(cause)].max())
        if shown[cause] < least and self._sums_of(cause).max() < _ON_ITS_WAY:
            cause = "parts"
        since = self._since(over, cause, number)
        return Drift(cause, since, number, self._amount(cause, over))

    def _most_moved(self, over: NDArray[np.bool_]) -> tuple[int, float]:
        """Give the place that has moved most of those whose sums are over, and by how many deviations."""
        moved = np.abs(self._recent[FIRST_CELL:]) * over[FIRST_CELL:]
        return FIRST_CELL + int(moved.argmax()), float(moved.max())

    def _since(self, over: NDArray[np.bool_], cause: Cause, number: int) -> int:
        """Give where the sums that show the cause left zero; of several the one with the largest sum."""
        sums = self._sums_of(cause) * over
        if not sums.any():
            sums = np.maximum(self._up, self._down) / self._limit * over
        index = int(sums.argmax())
        since = self._since_up if self._up[index] >= self._down[index] else self._since_down
        return min(number, int(since[index]))

    def _sums_of(self, cause: Cause) -> Values:
        """Give the sums of the values that show a cause, in their limits, and 0 for the others."""
        return np.asarray(np.maximum(self._up, self._down) / self._limit * _values_of(cause))

    def _amount(self, cause: Cause, over: NDArray[np.bool_]) -> str:
        shift = self._recent * self._deviation
        match cause:
            case "lamp":
                return f"the pictures are {_percent(math.expm1(float(shift[BRIGHTNESS])))}"
            case "focus":
                return f"edges are {1 - math.exp(float(shift[SHARPNESS])):.0%} less sharp"
            case "position":
                right, down = float(shift[RIGHT]), float(shift[DOWN])
                height, width = self._size
                return (
                    f"parts lie {right:+.1f} pixels to the right and {down:+.1f} down, of {width}×{height} "
                    "that the engine sees"
                )
            case "dirt":
                worst, _ = self._most_moved(over)
                first, side = next(grid for grid in reversed(_GRIDS) if worst >= grid[0])
                moved, mean = float(shift[worst]), float(self._mean[worst])
                level = math.expm1(moved) if first == FIRST_SPOT else moved / max(1e-3, mean)
                row, column = divmod(worst - first, side)
                height, width = self._size
                x, y = round((column + 0.5) * width / side), round((row + 0.5) * height / side)
                return (
                    f"the same place in every picture is {_percent(level)}: x {x}, y {y} of {width}×{height}"
                )
            case "parts":
                return self._most_changed()

    def _most_changed(self) -> str:
        """Say which values have moved most."""
        named = [(abs(float(self._recent[index])), name) for index, name in enumerate(STATISTICS)]
        named.append((abs(float(self._recent[SCORE])), "score"))
        regions = np.abs(self._recent[FIRST_REGION:FIRST_CELL])
        named.append((float(regions.max()), "anomaly map"))
        shown = [f"{name} by {by:.1f} deviations" for by, name in sorted(named, reverse=True)[:3] if by >= 1]
        return "moved: " + (", ".join(shown) or "the scores, by less than a deviation")


def _values_of(cause: Cause) -> NDArray[np.bool_]:
    """Say which values show a cause."""
    chosen = np.zeros(VALUES, np.bool_)
    match cause:
        case "lamp":
            chosen[BRIGHTNESS] = True
        case "focus":
            chosen[SHARPNESS] = True
        case "position":
            chosen[[RIGHT, DOWN]] = True
        case "dirt":
            chosen[FIRST_CELL:] = True
        case "parts":
            chosen[:FIRST_CELL] = True
    return chosen


def _one_small_place(over: NDArray[np.bool_]) -> bool:
    """Say whether the places that have moved are few and lie together."""
    for first, side in _GRIDS:
        moved = over[first : first + side**2]
        if not moved.any():
            continue
        rows, columns = np.nonzero(moved.reshape(side, side))
        if len(rows) > _FEW * moved.size or max(np.ptp(rows), np.ptp(columns)) > side // 3:
            return False
    return bool(over[FIRST_CELL:].any())


def _percent(change: float) -> str:
    return f"{abs(change):.0%} {'brighter' if change > 0 else 'darker'}"
