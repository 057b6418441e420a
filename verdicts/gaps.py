from dataclasses import dataclass
from typing import Final

# A publisher that starts over and over may not fill a subscriber's memory.
_BOOTS_REMEMBERED: Final = 16


@dataclass(frozen=True, slots=True)
class Lost:
    """Verdicts that were published and never received: ``first`` to ``last``, both included, of one boot."""

    boot: str
    first: int
    last: int


class Gaps:
    """Finds the verdicts that one subscriber missed, from the ``seq`` of those it received.

    Each boot of the daemon counts its verdicts 1, 2, 3, …, and health repeats the last number, so that a
    lost tail is noticed too. What was published before the subscriber's very first message is not missed; of
    every later boot the count starts at 1. A verdict that is reported lost and comes after all is a
    duplicate: everything published is either new once or lost once.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def verdict(self, boot: str, seq: int) -> tuple[bool, Lost | None]:
        """Take note of a verdict: whether it is new, and what is missing before it."""
        new = seq > self._last.get(boot, 0)
        return new, self._advance(boot, seq, due=seq - 1)

    def health(self, boot: str, seq: int) -> Lost | None:
        """Take note of a health message: what is missing up to the ``seq`` it names."""
        return self._advance(boot, seq, due=seq)

    def _advance(self, boot: str, seq: int, due: int) -> Lost | None:
        known = self._last.get(boot, 0 if self._last else due)
        self._last[boot] = max(known, seq)
        if len(self._last) > _BOOTS_REMEMBERED:
            del self._last[next(iter(self._last))]
        return Lost(boot, known + 1, due) if due > known else None
