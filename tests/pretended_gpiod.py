"""A chip without hardware: what a process takes for the package gpiod that finds this under its name.

The chip is a folder, and its files are what a test does to it: while there is ``gone`` it is unplugged;
``lose`` makes it lose as many edges as it says. Of two lines that are asked for their edges turns an encoder,
forwards by 1,000 edges per second. An output writes each change into ``values``, as a simulated one does.
"""

import errno
import os
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

EDGES_PER_S = 1000
TURN = ((0, True), (1, True), (0, False), (1, False))

line = ModuleType("gpiod.line")
for name in ("Value", "Direction", "Edge", "Bias"):
    setattr(line, name, Enum(name, "INACTIVE ACTIVE OUTPUT RISING BOTH AS_IS"))
sys.modules["gpiod.line"] = line


class LineSettings:
    def __init__(self, **_: object) -> None: ...


@dataclass
class EdgeEvent:
    line_offset: int
    event_type: bool
    global_seqno: int

    class Type:
        RISING_EDGE = True


class LineRequest:
    def __init__(self, chip: Path, lines: tuple[int, ...]) -> None:
        self._chip = chip
        self._lines = lines
        self._edges = self._lost = 0
        self._begun_s = time.monotonic()
        self._released = False
        self._there()

    def set_value(self, _line: int, value: Any) -> None:
        self._there()
        with (self._chip / "values").open("ab") as file:
            file.write(b"%d %d\n" % (time.monotonic_ns(), value.name == "ACTIVE"))

    def get_values(self, lines: list[int]) -> list[Any]:
        self._there()
        place = self._edges % len(TURN)
        levels = [place in (1, 2), place in (2, 3)]
        return [line.Value.ACTIVE if level else line.Value.INACTIVE for level in levels[: len(lines)]]

    def wait_edge_events(self, _timeout: float) -> bool:
        time.sleep(0.003)
        return True

    def read_edge_events(self) -> list[EdgeEvent]:
        self._there()
        lose = self._chip / "lose"
        if lose.exists():
            self._lost += int(lose.read_text())
            lose.unlink()
        first, self._edges = self._edges, int((time.monotonic() - self._begun_s) * EDGES_PER_S)
        turns = [(edge, *TURN[edge % len(TURN)]) for edge in range(first, self._edges)]
        return [EdgeEvent(self._lines[place], up, 1 + self._lost + edge) for edge, place, up in turns]

    def release(self) -> None:
        self._released = True

    def _there(self) -> None:
        """See that the chip is there: an old request does not come back with it."""
        assert not self._released
        self._unplugged = (self._chip / "gone").exists() or getattr(self, "_unplugged", False)
        if self._unplugged:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def request_lines(chip: str, *, consumer: str, config: dict[tuple[int, ...], LineSettings]) -> LineRequest:
    [lines] = config
    return LineRequest(Path(chip), lines)
