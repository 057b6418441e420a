"""Forwards one line: takes what the line has journaled to the hub, and acknowledges what the hub has."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from fleet.hubs import Entry, Hub, HubFailed
from foundation.errors import InputError
from verdicts import (
    AcknowledgedSubscription,
    Health,
    LineSilent,
    Lost,
    SubscriberRefused,
    SubscriberReplaced,
    Verdict,
    encode,
)

_log = logging.getLogger(__name__)
State = Literal["starting", "forwarding", "line silent", "line refuses", "hub down"]
WINDOW: Final = 500
"""Verdicts that are in flight to the hub at once."""
_TICK_S: Final = 0.25
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 15.0
Subscribe = Callable[[Callable[[Lost], None]], AcknowledgedSubscription]


@dataclass(frozen=True, slots=True)
class LineHealth:
    """How the forwarding of one line fares.

    Attributes:
        state: what it does, or what keeps it from that.
        since: when it came to be so: ISO 8601, UTC.
        error: one line about the last trouble; None while there is none.
        behind: verdicts in the line's journal that the hub does not have; None where the line does not tell.
        forwarded: verdicts that the hub took, since the start.
        already_there: verdicts that the hub had already and that were not sent again.
        lost: verdicts that the line's journal no longer had when their turn came.
        last: ``boot:seq`` of the last verdict that the hub took.
    """

    state: State
    since: str
    error: str | None = None
    behind: int | None = None
    forwarded: int = 0
    already_there: int = 0
    lost: int = 0
    last: str | None = None

    def content(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


class Forwarder:
    """A thread. While the hub is away it does not subscribe: the line's journal is the queue.

    Attributes:
        line: its name.
        health: how it fares; may be read in any thread.
    """

    def __init__(self, plant: str, line: str, name: str, hub: Hub, subscribe: Subscribe) -> None:
        """Prepare; ``start`` begins.

        Args:
            plant: whose line it is.
            line: its name.
            name: under which the line keeps a place.
            hub: shared by all lines.
            subscribe: makes a subscription that does not acknowledge by itself; its argument is told what
                is lost.
        """
        self.line = line
        self.health = LineHealth("starting", _now())
        self._plant = plant
        self._name = name
        self._hub = hub
        self._subscribe = subscribe
        self._product = _Product()
        self._silent_after: Health | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=line, daemon=True)

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

    def _run(self) -> None:
        self._take_place()
        pause_s = _FIRST_PAUSE_S
        while not self._end.is_set():
            forwarded = self.health.forwarded
            try:
                self._hub.connect()
                last = self._hub.last(self._plant, self.line)
                with self._subscribe(self._lost) as subscription:
                    self._forward(subscription, last)
                continue
            except (HubFailed, InputError) as error:
                self._become("hub down", str(error))
            except (SubscriberReplaced, SubscriberRefused) as error:
                self._become("line refuses", str(error))
            except Exception as error:  # one line must not end silently
                _log.exception("%s", self.line)
                self._become("hub down", f"{type(error).__name__}: {error}")
            if self.health.forwarded > forwarded:
                pause_s = _FIRST_PAUSE_S
            # Not all lines at the same moment when a hub comes back.
            self._end.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _take_place(self) -> None:
        """Make the line keep a place for this name from now on, whether or not the hub is there."""
        while not self._end.is_set():
            try:
                with self._subscribe(self._lost) as subscription:
                    subscription.join()
                return
            except LineSilent as silence:
                self._become("line silent", str(silence))
            except (SubscriberReplaced, SubscriberRefused) as error:
                self._become("line refuses", str(error))
                self._end.wait(_LONGEST_PAUSE_S)

    def _forward(self, subscription: AcknowledgedSubscription, last: tuple[str, int] | None) -> None:
        """Forward until the end.

        Args:
            subscription: from which verdicts come, in order and each once.
            last: what the hub had last when the subscription began. A hub that kept it before it was asked
                again must not get it twice, however long ago that was.
        """
        while not self._end.is_set():
            batch = self._batch(subscription)
            self._note(subscription.health)
            if not batch:
                continue
            fresh = _after(batch, last)
            if fresh:
                self._hub.put(fresh)
                if last is not None and any(entry.boot == last[0] for entry in fresh):
                    last = None  # nothing before it comes any more
            subscription.acknowledge(batch[-1][0])
            self.health = replace(
                self.health,
                forwarded=self.health.forwarded + len(fresh),
                already_there=self.health.already_there + len(batch) - len(fresh),
                last=f"{batch[-1][1].boot}:{batch[-1][1].seq}",
            )

    def _batch(self, subscription: AcknowledgedSubscription) -> list[tuple[Verdict, Entry]]:
        """Give what has arrived, or what comes within a tick."""
        batch: list[tuple[Verdict, Entry]] = []
        try:
            verdict = subscription.take(_TICK_S)
            while verdict is not None:
                product = self._product.of(verdict, subscription.health)
                entry = Entry(self._plant, self.line, verdict.boot, verdict.seq, product, encode(verdict)[1])
                batch.append((verdict, entry))
                if len(batch) == WINDOW:
                    break
                verdict = subscription.take(0)
        except LineSilent as silence:
            self._silent_after = silence.health
            self._become("line silent", str(silence))
            return batch
        if batch or subscription.health is not self._silent_after:
            self._become("forwarding")
        return batch

    def _note(self, health: Health | None) -> None:
        mine = None if health is None else health.subscribers.get(self._name)
        self.health = replace(self.health, behind=None if mine is None else mine.unacknowledged)

    def _lost(self, lost: Lost) -> None:
        _log.warning(
            "%s: verdicts %d to %d of boot %s are lost: the journal does not have them any more",
            self.line,
            lost.first,
            lost.last,
            lost.boot,
        )
        self.health = replace(self.health, lost=self.health.lost + lost.last - lost.first + 1)

    def _become(self, state: State, error: str | None = None) -> None:
        text = None if error is None else " ".join(error.split())
        if state != self.health.state:
            if state == "forwarding":
                _log.info("%s: forwarding", self.line)
            else:
                _log.warning("%s: %s: %s; trying again", self.line, state, text)
            self.health = replace(self.health, state=state, since=_now())
        self.health = replace(self.health, error=text)


class _Product:
    """Which product was judged: health tells it, verdicts do not.

    A verdict that is older than the first health that names the product may be of another one: of those
    that come after an absence the product is not known.
    """

    def __init__(self) -> None:
        self._health: Health | None = None
        self._since = ""

    def of(self, verdict: Verdict, health: Health | None) -> str | None:
        """Give the product of a verdict; None where it is not known, or the line's config names none."""
        if health is None:
            return None
        known = self._health
        if known is None or (known.boot, known.product) != (health.boot, health.product):
            self._since = health.sent_at
        self._health = health
        fresh = verdict.boot == health.boot and verdict.captured_at >= self._since
        return health.product if fresh else None


def _after(batch: list[tuple[Verdict, Entry]], last: tuple[str, int] | None) -> list[Entry]:
    """Leave out what the hub has already, knowing what it got last."""
    entries = [entry for _, entry in batch]
    if last is None:
        return entries
    keys = [(entry.boot, entry.seq) for entry in entries]
    if last in keys:
        return entries[keys.index(last) + 1 :]
    boot, seq = last
    return [entry for entry in entries if entry.boot != boot or entry.seq > seq]


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
