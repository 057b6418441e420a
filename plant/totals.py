"""Counts that never fall, made of counts that begin anew with each start of the daemon."""

from collections.abc import Mapping


class Totals:
    """Adds the counts of all starts of the daemon that were seen; used by one thread at a time."""

    def __init__(self) -> None:
        self.boots = 0
        """How many starts were seen."""
        self._boot: str | None = None
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}

    def take(self, boot: str, counts: Mapping[str, int]) -> None:
        """Take what a start of the daemon has counted so far.

        Args:
            boot: which start.
            counts: by name. One that falls or goes missing within a start stays where it was: it can only be
                of a message that came late.
        """
        if boot != self._boot:
            self._boot = boot
            self.boots += 1
            for name, count in self._now.items():
                self._before[name] = self._before.get(name, 0) + count
            self._now = {}
        for name, count in counts.items():
            self._now[name] = max(count, self._now.get(name, 0))

    def content(self) -> dict[str, int]:
        """Give the totals by name."""
        names = {**self._before, **self._now}
        return {name: self._before.get(name, 0) + self._now.get(name, 0) for name in names}
