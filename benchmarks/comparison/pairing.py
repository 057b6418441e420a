"""Sides take turns within one run, so that whatever else the machine does disturbs all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

PAUSE_S = 0.05
"""Between two turns: the threads of whoever ran last spin for some milliseconds before they sleep."""

Turn = Callable[[], float]
"""Does the work once and gives what was measured, usually milliseconds."""


@dataclass(frozen=True)
class Spread:
    """The middle of measured values, and where most of them lie."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Take the percentiles of at least one value."""
        low, middle, high = np.percentile(values, (10, 50, 90)).tolist()
        return cls(middle, low, high)

    def cells(self, digits: int = 1) -> tuple[str, str]:
        """Give median and spread as two cells of a table."""
        return f"{self.median:,.{digits}f}", f"{self.p10:,.{digits}f}–{self.p90:,.{digits}f}"


def take_turns(
    sides: Mapping[str, Turn], laps: int, label: str, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Let the sides take turns: first, second, …, first, second, ….

    Args:
        sides: name → turn.
        laps: turns of each side that count.
        label: of the progress bar.
        warm_up: turns of each side before, which do not count.

    Returns:
        Name → what was measured, lap by lap: the values at one index belong together.
    """
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for lap in tqdm(range(-warm_up, laps), desc=label, unit="lap", leave=False, disable=None):
        for name, turn in sides.items():
            time.sleep(PAUSE_S)
            value = turn()
            if lap >= 0:
                measured[name].append(value)
    return measured


def ratio(measured: Mapping[str, Sequence[float]], of: str, to: str) -> Spread:
    """Compare two sides lap by lap.

    Args:
        measured: what ``take_turns`` gave.
        of: name of the numerator's side.
        to: name of the denominator's side.
    """
    return Spread.of([ours / theirs for ours, theirs in zip(measured[of], measured[to], strict=True)])


def timed(work: Callable[[], object]) -> float:
    """Give the milliseconds that something takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3
