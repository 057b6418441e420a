"""The line as the gates' own process hears it: nothing beside it that is slow can hold a verdict up."""

import logging
from collections import deque
from typing import Final

from lines.line_config import LineConfig
from verdicts import Health, LineSilent, Lost, Subscription, Verdict, subscribe
from verdicts.request import LARGEST

_log = logging.getLogger(__name__)
_MOST_MISSED: Final = 1000


class Hearing:
    """Verdicts the moment they come, and whether they are to be trusted.

    Attributes:
        recovering: whether what was on its way before this process began is not known yet.
        missed: what has to be asked for elsewhere, as asking takes time; the asker takes it out.
    """

    def __init__(self, line: LineConfig, silence_s: float) -> None:
        """Begin to listen.

        Args:
            line: which one.
            silence_s: seconds without health until it counts as silent.
        """
        self.recovering = False
        self.missed: deque[Lost] = deque(maxlen=_MOST_MISSED)
        self._silence_after: Health | None = None
        self._health: Health | None = None
        self._boot: str | None = None
        self._seq = 0
        self._subscription: Subscription = subscribe(
            line.publish,
            line=line.name,
            silence_s=silence_s,
            on_lost=self.missed.append,
            curve=line.curve,
        )

    def fileno(self) -> int:
        """Give a descriptor for ``select``: ready when something has come since ``take`` gave None."""
        return self._subscription.fileno()

    @property
    def begun(self) -> bool:
        """Whether the line was heard: nothing that it publishes from then on is missed unnoticed."""
        return self._boot is not None

    def take(self) -> Verdict | None:
        """Give the next verdict that has come; None when there is none."""
        try:
            verdict = self._subscription.take(0)
        except LineSilent as silence:
            if silence.health is not self._silence_after:
                _log.warning("%s", silence)
            self._silence_after = silence.health
            return None
        health, before = self._subscription.health, self._health
        self._health = health
        news = verdict or (None if health is before else health)  # an old health may be of the boot before
        if news is not None and news.boot != self._boot:
            if self._boot is not None:  # its last verdicts, and those that the next daemon wrote for it
                self.missed.append(Lost(self._boot, self._seq + 1, LARGEST))
            self._boot, self._seq = news.boot, 0
        if news is not None:
            self._seq = max(self._seq, news.seq)
        return verdict

    def trouble(self) -> str | None:
        """Say why nothing of the line is to be let through; None while it may."""
        health = self._subscription.health
        if health is None:
            return "the line has not been heard yet"
        if health is self._silence_after:
            return "the line is silent"
        if health.state == "failed":
            return "the line has given up"
        return "the line's journal is being asked what is on its way" if self.recovering else None
