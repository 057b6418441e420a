"""Where the belt was, and when: kept in a file's pages, so that it outlives a process that is killed."""

import mmap
import os
from bisect import bisect_right
from pathlib import Path
from typing import Final

from foundation.errors import refused_by_system

_MAGIC: Final = b"inspctd1"
_ENTRIES: Final = 65_536
_HEADER: Final = 10  # doubles, of which the first is the magic and the next two name the machine's start
_COUNT, _OFFSET, _OFFSET_S, _STEP, _NEWEST_S, _NEWEST, _RAW = range(3, 10)
_ANCHOR_S: Final = 0.02
_GAP_S: Final = 0.1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_STEP_S: Final = 0.005
_SLEW: Final = 0.0005
"""By how much the system may rightly turn the wall clock, per second."""


class Track:
    """The last positions of the belt, thinned: between two of them it moved steadily, to within ``step``.

    Times are of ``time.monotonic()``, which counts on while no process of ours runs. It begins anew with
    the machine, and so does this.
    """

    def __init__(self, file: Path, step: float) -> None:
        """Open or make the file.

        Args:
            file: 1 MB.
            step: after a movement of so much a position is noted.

        Raises:
            InputError: the file cannot be written.
        """
        size = 8 * (_HEADER + 2 * _ENTRIES)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(descriptor, 0, size)  # a full disk shows here, not in a later write
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise refused_by_system(f"{file}: cannot be written: {error.strerror}", error) from error
        self._doubles = memoryview(self._map).cast("d")
        self._step = step
        start = bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
        if self._map[:24] != _MAGIC + start or self._doubles[_STEP] != step:
            self._map[:] = bytes(size)
            self._doubles[_STEP] = step
            self._map[:24] = _MAGIC + start
        self._moving = False
        self._anchor: tuple[float, float] | None = None
        newest = self.newest
        if newest is not None and newest[0] > self._entry(self._count - 1)[0]:
            self._append(*newest[:2])  # nobody looked from then on until now
        self.known_from_s = float("-inf")
        """What was before is not known: a jump, or a counter that lost count."""

    @property
    def newest(self) -> tuple[float, float, float] | None:
        """The newest time and position, and what the counter showed then; None without any."""
        found = self._doubles
        return (found[_NEWEST_S], found[_NEWEST], found[_RAW]) if self._count else None

    def note(self, now_s: float, position: float, raw: float = 0.0) -> None:
        """Take a position that was just read; times ascend."""
        found = self._doubles
        found[_NEWEST_S], found[_NEWEST], found[_RAW] = now_s, position, raw
        last = self._entry(self._count - 1) if self._count else None
        if last is None or abs(position - last[1]) >= self._step:
            if (
                not self._moving
                and last is not None
                and self._anchor is not None
                and self._anchor[0] > last[0]
            ):
                self._append(*self._anchor)  # until then it stood
            self._append(now_s, position)
            self._moving = True
        elif self._anchor is not None and now_s - self._anchor[0] < _ANCHOR_S:
            return
        else:
            moving = self._anchor is not None and position != self._anchor[1]
            if moving != self._moving and self._anchor is not None and self._anchor[0] > last[0]:
                self._append(*self._anchor)
            self._moving = moving
        self._anchor = (now_s, position)

    def at(self, moment_s: float) -> float | None:
        """Tell where the belt was; None where that is not known."""
        count = self._count
        first = max(0, count - _ENTRIES)
        if not count or moment_s < max(self.known_from_s, self._entry(first)[0]):
            return None
        index = bisect_right(range(first, count), moment_s, key=lambda index: self._entry(index)[0]) + first
        before = self._entry(index - 1)
        if index < count:
            after = self._entry(index)
        elif self._anchor is not None and self._anchor[0] > before[0]:
            after = self._anchor
        else:
            return before[1]
        elapsed_s, moved = after[0] - before[0], after[1] - before[1]
        if elapsed_s > _GAP_S and abs(moved) > 4 * self._step:
            return None  # nobody looked meanwhile
        return before[1] + moved * min(1.0, (moment_s - before[0]) / elapsed_s)

    def since(self, position: float) -> float | None:
        """Give a moment after which the belt was beyond a position all the time; None if that is not known.

        What was captured before it has left the gate behind.
        """
        count = self._count
        first = max(0, count - _ENTRIES)
        for index in range(count - 1, first - 1, -1):
            if self._entry(index)[1] < position:
                return self._entry(index)[0]
        return self._entry(first)[0] if count else None

    def distrust(self, now_s: float) -> None:
        """Forget what was: where it was is not known."""
        self.known_from_s = now_s
        self._doubles[_COUNT] = 0.0
        self._anchor = None

    def note_clock(self, now_s: float, offset_s: float) -> bool:
        """Note by how much the wall clock is ahead of the monotonic one; False when it was stepped.

        The first call of a process compares with the last one of the process before.
        """
        known_s, known_at_s = self._doubles[_OFFSET], self._doubles[_OFFSET_S]
        self._doubles[_OFFSET], self._doubles[_OFFSET_S] = offset_s, now_s
        if not known_at_s:
            return True
        return abs(offset_s - known_s) <= _CLOCK_STEP_S + _SLEW * (now_s - known_at_s)

    def close(self) -> None:
        """Let go of the file; it stays."""
        self._doubles.release()
        self._map.close()

    @property
    def _count(self) -> int:
        return int(self._doubles[_COUNT])

    def _entry(self, index: int) -> tuple[float, float]:
        at = _HEADER + 2 * (index % _ENTRIES)
        return self._doubles[at], self._doubles[at + 1]

    def _append(self, now_s: float, position: float) -> None:
        count = self._count
        at = _HEADER + 2 * (count % _ENTRIES)
        self._doubles[at], self._doubles[at + 1] = now_s, position
        self._doubles[_COUNT] = float(count + 1)  # last: a process may be killed between any two lines
