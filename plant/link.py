"""One output's link: delivers what the line journaled, for as long as it takes, in a thread of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lines.relay import FIRST_PAUSE_S, Relay, RelayHealth, Subscribe
from plant.outputs import Delivery, LineNow, Output, PeerFailed, PeerWaits
from verdicts import AcknowledgedSubscription, LineSilent, SubscriberRefused, SubscriberReplaced


@dataclass(frozen=True, slots=True)
class LinkHealth(RelayHealth):
    """How an output fares: "connecting" until it was first reached; "down" while it cannot be reached.

    Attributes:
        delivered: verdicts that the other end has confirmed, since the start.
        repeated: of these, how many may have been there before.
        failures: how often the other end was lost or not reached, since the start.
    """

    delivered: int = 0
    repeated: int = 0
    failures: int = 0


class Link(Relay[LinkHealth]):
    """Subscribes under a name of its own, so that one output that is away holds no other up."""

    def __init__(self, name: str, output: Output, subscribe: Subscribe, line: Callable[[], LineNow]) -> None:
        """Prepare; ``start`` begins.

        Args:
            name: of the output.
            output: not connected yet.
            subscribe: makes the subscription.
            line: tells how the line fares.
        """
        super().__init__(name, subscribe, LinkHealth, "connecting")
        self._output = output
        self._line = line

    def _relay(self) -> None:
        try:
            if self._output.connect() or self.health.state == "connecting":
                self._become("connected")
            while not self._end.is_set():
                try:
                    with self._subscribe(self._lost) as subscription:
                        self._deliver(subscription)
                except PeerWaits as error:
                    self._trouble(error)
                    self._end.wait(FIRST_PAUSE_S)
        finally:
            self._output.close()

    def _deliver(self, subscription: AcknowledgedSubscription) -> None:
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
        batch: list[Delivery] = []
        try:
            for verdict in self._arrived(subscription, self._output.most_at_once):
                batch.append(Delivery(verdict, subscription.repeated))
        except LineSilent:
            pass  # the line's state says so, and whoever is at the other end is told
        return batch

    def _handed_on(self) -> int:
        return self.health.delivered

    def _trouble(self, error: Exception) -> None:
        match error:
            case LineSilent():
                if self.health.error is None:  # for how long it is silent is no news
                    self._become(self.health.state, str(error))
                return
            case SubscriberReplaced() | SubscriberRefused():
                self._become("down", f"the line delivers nothing: {error}")
            case PeerFailed():
                self._become("down", str(error))
            case _:
                self._become("down", self._unforeseen(error))
        self.health = replace(self.health, failures=self.health.failures + 1)
