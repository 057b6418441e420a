"""Listens to the line as it runs: its verdicts the moment they come, its health, its statistics."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from lines.line_config import LineConfig
from plant.outputs import LineNow
from verdicts import (
    ControlRefused,
    ControlSilent,
    Health,
    LineControl,
    LineSilent,
    Lost,
    MalformedMessage,
    Statistics,
    Subscription,
    Verdict,
    subscribe,
)

_log = logging.getLogger(__name__)
_ASK_EVERY_S: Final = 2.0


class Listening:
    """Two threads: one hears verdicts and health, one asks for statistics. May be read in any thread.

    Attributes:
        statistics: the last that were told; None before the first, or where the line answers no requests.
        lost: verdicts that were published and neither heard nor found in the journal, since the start.
        malformed: messages that were not of schema 1.
    """

    def __init__(self, line: LineConfig, silence_s: float) -> None:
        """Prepare; ``start`` begins.

        Args:
            line: which one.
            silence_s: seconds without health until the line counts as silent.
        """
        self.statistics: Statistics | None = None
        self.lost = 0
        self._line = line
        self._came: list[Callable[[Verdict], None]] = []
        self._silence_s = silence_s
        self._silence_after: Health | None = None
        self._subscription: Subscription = subscribe(
            line.publish,
            line=line.name,
            silence_s=silence_s,
            on_lost=self._note_lost,
            control=line.control,
            curve=line.curve,
        )

    def tell(self, came: Callable[[Verdict], None]) -> None:
        """Have something called for each verdict, in the thread that listens; before ``start``."""
        self._came.append(came)

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._listen, name="listening", daemon=True).start()
        if self._line.control is not None:
            threading.Thread(target=self._ask, name="asking", daemon=True).start()

    @property
    def malformed(self) -> int:
        """Messages that were not of schema 1."""
        return self._subscription.malformed

    @property
    def health(self) -> Health | None:
        """The last health; None before the first."""
        return self._subscription.health

    def now(self) -> LineNow:
        """Tell how the line fares."""
        health = self.health
        return LineNow(self._line.name, health, silent=health is None or health is self._silence_after)

    def _listen(self) -> None:
        told = False
        while True:
            try:
                verdict = next(self._subscription)
            except LineSilent as silence:
                if not told:
                    _log.warning("%s", silence)
                told, self._silence_after = True, silence.health
                continue
            except StopIteration:
                return
            except Exception:
                _log.exception("listening")
                time.sleep(1)
                continue
            told = False
            for came in self._came:
                came(verdict)

    def _ask(self) -> None:
        assert self._line.control is not None
        with LineControl(self._line.control, curve=self._line.curve) as control:
            while True:
                # Without an answer, what health tells is enough to know that something is wrong.
                with contextlib.suppress(ControlSilent, ControlRefused, MalformedMessage):
                    self.statistics = control.statistics()
                time.sleep(_ASK_EVERY_S)

    def _note_lost(self, lost: Lost) -> None:
        _log.warning("verdicts %d to %d of boot %s were not heard", lost.first, lost.last, lost.boot)
        self.lost += lost.last - lost.first + 1
