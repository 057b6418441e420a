"""One output's link: delivers what the line journaled, for as long as it takes, in a thread of its own."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from foundation.errors import printable
from plant.outputs import Delivery, LineNow, Output, PeerFailed, PeerWaits
from verdicts import AcknowledgedSubscription, LineSilent, Lost, SubscriberRefused, SubscriberReplaced

_log = logging.getLogger(__name__)

LinkState = Literal["connecting", "connected", "down"]
_TICK_S: Final = 0.25
_LONGEST_ERROR: Final = 300
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class LinkHealth:
    """How an output fares.

    Attributes:
        state: "connecting" until it was first reached; "down" while it cannot be reached.
        since: when it came to be so: ISO 8601, UTC.
        error: one line about why it is down; None while it is not.
        delivered: verdicts that the other end has confirmed, since the start.
        repeated: of these, how many may have been there before.
        failures: how often the other end was lost or not reached, since the start.
        lost: verdicts that the journal no longer had when their turn came.
    """

    state: LinkState
    since: str
    error: str | None = None
    delivered: int = 0
    repeated: int = 0
    failures: int = 0
    lost: int = 0

    def content(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {name: getattr(self, name) for name in self.__slots__}


class Link:
    """Subscribes under a name of its own, so that one output that is away holds no other up.

    The subscription exists only while the other end can be reached: nothing piles up here, and the line does
    not send again and again what cannot be handed over.

    Attributes:
        name: of the output.
        health: how it fares; may be read in any thread.
    """

    def __init__(
        self,
        name: str,
        output: Output,
        subscribe: Callable[[Callable[[Lost], None]], AcknowledgedSubscription],
        line: Callable[[], LineNow],
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            name: of the output.
            output: not connected yet.
            subscribe: makes the subscription; its argument is told what is lost.
            line: tells how the line fares.
        """
        self.name = name
        self.health = LinkHealth("connecting", _now())
        self._output = output
        self._subscribe = subscribe
        self._line = line
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

    def _run(self) -> None:
        pause_s, placed, connected, reached = _FIRST_PAUSE_S, False, False, False
        while not self._end.is_set():
            delivered = self.health.delivered
            try:
                placed = placed or self._take_place()
                if not connected:
                    reached = self._output.connect()
                    connected = True
                if not placed:
                    self._output.tell(self._line())
                    continue
                if reached or self.health.state == "connecting":
                    self._become("connected")
                    reached = False
                self._deliver()
            except PeerWaits as error:
                self._failed(str(error))
                self._end.wait(_FIRST_PAUSE_S)
                continue
            except PeerFailed as error:
                self._failed(str(error))
            except (SubscriberReplaced, SubscriberRefused) as error:
                self._failed(f"the line delivers nothing: {error}")
            except Exception as error:  # one output must not end silently
                _log.exception("%s", self.name)
                self._failed(f"{type(error).__name__}: {error}")
            self._output.close()
            connected = False
            if self.health.delivered > delivered:
                pause_s = _FIRST_PAUSE_S
            # Not all at the same moment when a broker comes back.
            self._end.wait(pause_s * random.uniform(0.8, 1.2))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._output.close()

    def _take_place(self) -> bool:
        """Have the line keep a place for this name from now on, whether or not the other end is there.

        Returns:
            Whether it does. While the line is silent it cannot, and then the other end should hear of that.
        """
        try:
            with self._subscribe(self._lost) as subscription:
                subscription.join()
        except LineSilent as silence:
            if self.health.error is None:
                _log.warning("%s: %s", self.name, silence)
                self._become(self.health.state, str(silence))
            return False
        return True

    def _deliver(self) -> None:
        with self._subscribe(self._lost) as subscription:
            while not self._end.is_set():
                self._output.tell(self._line())
                batch = self._batch(subscription)
                if not batch:
                    continue
                self._output.deliver(batch)
                subscription.acknowledge(batch[-1].verdict)
                self._become("connected")
                self.health = replace(
                    self.health,
                    delivered=self.health.delivered + len(batch),
                    repeated=self.health.repeated + sum(delivery.repeated for delivery in batch),
                )

    def _batch(self, subscription: AcknowledgedSubscription) -> list[Delivery]:
        """Give what has arrived, or what comes within a tick."""
        batch: list[Delivery] = []
        try:
            verdict = subscription.take(_TICK_S)
            while verdict is not None:
                batch.append(Delivery(verdict, subscription.repeated))
                if len(batch) == self._output.most_at_once:
                    break
                verdict = subscription.take(0)
        except LineSilent:
            pass  # the line's state says so, and whoever is at the other end is told
        return batch

    def _lost(self, lost: Lost) -> None:
        _log.warning(
            "%s: verdicts %d to %d of boot %s are lost: the journal does not have them any more",
            self.name,
            lost.first,
            lost.last,
            lost.boot,
        )
        self.health = replace(self.health, lost=self.health.lost + lost.last - lost.first + 1)

    def _become(self, state: LinkState, error: str | None = None) -> None:
        if state != self.health.state:
            if state == "connected":
                _log.info("%s: connected", self.name)
            self.health = replace(self.health, state=state, since=_now())
        self.health = replace(self.health, error=error)

    def _failed(self, error: str) -> None:
        if self._end.is_set():
            return
        text = printable(" ".join(error.split()))[:_LONGEST_ERROR]
        if self.health.state != "down" or self.health.error != text:
            _log.warning("%s: %s; trying again", self.name, text)
        self._become("down", text)
        self.health = replace(self.health, failures=self.health.failures + 1)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
