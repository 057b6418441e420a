from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set of whole numbers kept as disjoint ranges, so that ``1 … 1,000,000`` costs as much as ``1``."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        """Take over ranges (first, last), both included; they are ascending and do not touch."""
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in spans:
            self._firsts.append(first)
            self._lasts.append(last)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def add(self, number: int) -> bool:
        """Add a number; False when it was there."""
        at = bisect_right(self._firsts, number)
        if at and number <= self._lasts[at - 1]:
            return False
        joins_left = at > 0 and self._lasts[at - 1] == number - 1
        joins_right = at < len(self._firsts) and self._firsts[at] == number + 1
        if joins_left and joins_right:
            self._lasts[at - 1] = self._lasts.pop(at)
            del self._firsts[at]
        elif joins_left:
            self._lasts[at - 1] = number
        elif joins_right:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)
        return True

    def count(self, first: int, last: int) -> int:
        """Count its numbers from ``first`` to ``last``."""
        return sum(
            max(0, min(last, span_last) - max(first, span_first) + 1) for span_first, span_last in self
        )

    def gaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """List the ranges between ``first`` and ``last`` that are not in it."""
        found, due = [], first
        for span_first, span_last in self:
            if span_last < due:
                continue
            if span_first > last:
                break
            if span_first > due:
                found.append((due, span_first - 1))
            due = span_last + 1
        if due <= last:
            found.append((due, last))
        return found

    def close_lowest_gaps(self, most_spans: int) -> None:
        """Fill its lowest gaps until it has no more than so many ranges."""
        surplus = len(self._firsts) - most_spans
        if surplus > 0:
            del self._firsts[1 : surplus + 1]
            del self._lasts[:surplus]
