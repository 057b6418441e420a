"""Forwards one line: takes what the line has journaled to the hub, and acknowledges what the hub has."""

from dataclasses import dataclass, replace
from typing import Final

from fleet.hubs import Entry, Hub, HubFailed
from foundation.errors import InputError
from lines.relay import Relay, RelayHealth, Subscribe
from verdicts import (
    AcknowledgedSubscription,
    Health,
    LineSilent,
    SubscriberRefused,
    SubscriberReplaced,
    Verdict,
    encode,
)

WINDOW: Final = 500
"""Verdicts that are in flight to the hub at once."""


@dataclass(frozen=True, slots=True)
class LineHealth(RelayHealth):
    """How one line fares: "starting", "forwarding", "line silent", "line refuses" or "hub down".

    Attributes:
        behind: verdicts in the line's journal that the hub does not have; None where the line does not tell.
        forwarded: verdicts that the hub took, since the start.
        already_there: verdicts that the hub had already and that were not sent again.
        last: ``boot:seq`` of the last verdict that the hub took.
    """

    behind: int | None = None
    forwarded: int = 0
    already_there: int = 0
    last: str | None = None


class Forwarder(Relay[LineHealth]):
    """Hands on the verdicts of one line; ``name`` is the line's."""

    def __init__(self, plant: str, line: str, place: str, hub: Hub, subscribe: Subscribe) -> None:
        """Prepare; ``start`` begins.

        Args:
            plant: whose line it is.
            line: its name.
            place: name under which the line keeps a place.
            hub: shared by all lines.
            subscribe: makes the subscription.
        """
        super().__init__(line, subscribe, LineHealth, "starting")
        self._plant = plant
        self._place = place
        self._hub = hub
        self._product = _Product()
        self._silent_after: Health | None = None

    def _relay(self) -> None:
        self._hub.connect()
        last = self._hub.last(self._plant, self.name)
        with self._subscribe(self._lost) as subscription:
            self._forward(subscription, last)

    def _handed_on(self) -> int:
        return self.health.forwarded

    def _trouble(self, error: Exception) -> None:
        match error:
            case LineSilent():
                if self.health.state != "line silent":  # for how long it is silent is no news
                    self._become("line silent", str(error))
            case SubscriberReplaced() | SubscriberRefused():
                self._become("line refuses", str(error))
            case HubFailed() | InputError():
                self._become("hub down", str(error))
            case _:
                self._become("hub down", self._unforeseen(error))

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
        batch: list[tuple[Verdict, Entry]] = []
        try:
            for verdict in self._arrived(subscription, WINDOW):
                product = self._product.of(verdict, subscription.health)
                entry = Entry(self._plant, self.name, verdict.boot, verdict.seq, product, encode(verdict)[1])
                batch.append((verdict, entry))
        except LineSilent as silence:
            self._silent_after = silence.health
            self._trouble(silence)
            return batch
        if batch or subscription.health is not self._silent_after:
            self._become("forwarding")
        return batch

    def _note(self, health: Health | None) -> None:
        mine = None if health is None else health.subscribers.get(self._place)
        self.health = replace(self.health, behind=None if mine is None else mine.unacknowledged)


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
