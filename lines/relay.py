"""A thread that hands on what a line journaled to somebody who may be away, for as long as it takes."""

import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from foundation.errors import printable
from verdicts import (
    AcknowledgedSubscription,
    LineSilent,
    Lost,
    Verdict,
)

_log = logging.getLogger(__name__)
_TICK_S: Final = 0.25
FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 15.0
_LONGEST_ERROR: Final = 300

Subscribe = Callable[[Callable[[Lost], None]], AcknowledgedSubscription]
"""Makes a subscription that does not acknowledge by itself; its argument is told what is lost."""


@dataclass(frozen=True, slots=True)
class RelayHealth:
    """How a relay fares.

    Attributes:
        state: what it does, or what keeps it from that.
        since: when it came to be so: ISO 8601, UTC.
        error: one line about the last trouble; None while there is none.
        lost: verdicts that the line's journal no longer had when their turn came.
    """

    state: str
    since: str
    error: str | None = None
    lost: int = 0

    def content(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


HealthT = TypeVar("HealthT", bound=RelayHealth)


class Relay(ABC, Generic[HealthT]):
    """It subscribes only while the other end can be reached: the line's journal is the queue.

    Nothing piles up here then, and the line does not send again and again what cannot be handed over.

    Attributes:
        name: for the log.
        health: how it fares; may be read in any thread.
    """

    def __init__(self, name: str, subscribe: Subscribe, health: type[HealthT], state: str) -> None:
        """Prepare; ``start`` begins.

        Args:
            name: for the log.
            subscribe: makes a subscription.
            health: how it fares, as a kind of its own.
            state: the first.
        """
        self.name = name
        self.health: HealthT = health(state, _now())
        self._subscribe = subscribe
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; ``join`` waits for that."""
        self._end.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    @abstractmethod
    def _relay(self) -> None:
        """Reach the other end, subscribe, and hand on until ``_end`` is set; leave nothing open.

        Raises:
            Exception: somebody takes or gives nothing; it is called again after a pause.
        """

    @abstractmethod
    def _handed_on(self) -> int:
        """Count what was handed on: after a success the pauses begin with the shortest again."""

    @abstractmethod
    def _trouble(self, error: Exception) -> None:
        """Note why nothing is handed on: ``LineSilent``, the line's refusal, or what ``_relay`` raised."""

    def _run(self) -> None:
        pause_s, placed = FIRST_PAUSE_S, False
        while not self._end.is_set():
            handed_on = self._handed_on()
            try:
                placed = placed or self._take_place()
                self._relay()
                continue
            except Exception as error:  # no relay must end silently
                self._trouble(error)
            if self._handed_on() > handed_on:
                pause_s = FIRST_PAUSE_S
            # Not all at the same moment when the other end comes back.
            self._end.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _unforeseen(self, error: Exception) -> str:
        """Log an error that nobody expected with all that is known of it; give one line about it."""
        _log.error("%s", self.name, exc_info=error)
        return f"{type(error).__name__}: {error}"

    def _take_place(self) -> bool:
        """Have the line keep a place for this name from now on, whether or not the other end is there.

        Returns:
            Whether it does. While the line is silent it cannot, and then the other end should hear of that.
        """
        try:
            with self._subscribe(self._lost) as subscription:
                subscription.join()
        except LineSilent as silence:
            self._trouble(silence)
            return False
        return True

    def _arrived(self, subscription: AcknowledgedSubscription, most: int) -> Iterator[Verdict]:
        """Give what has arrived, or what comes within a tick."""
        wait_s = _TICK_S
        for _ in range(most):
            verdict = subscription.take(wait_s)
            if verdict is None:
                return
            yield verdict
            wait_s = 0.0

    def _lost(self, lost: Lost) -> None:
        _log.warning(
            "%s: verdicts %d to %d of boot %s are lost: the journal does not have them any more",
            self.name,
            lost.first,
            lost.last,
            lost.boot,
        )
        self.health = replace(self.health, lost=self.health.lost + lost.last - lost.first + 1)

    def _become(self, state: str, error: str | None = None) -> None:
        """Note a state, since when, and why; log what has changed."""
        text = None if error is None else printable(" ".join(error.split()))[:_LONGEST_ERROR]
        before = self.health
        if state != before.state:
            self.health = replace(self.health, state=state, since=_now())
        self.health = replace(self.health, error=text)
        if self._end.is_set() or (state, text) == (before.state, before.error):
            return
        if text is None:
            _log.info("%s: %s", self.name, state)
        else:
            _log.warning("%s: %s: %s; trying again", self.name, state, text)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
