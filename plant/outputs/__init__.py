"""The seam of the outputs: every way into the plant implements ``Output``."""

# What an output raises:
#
# PeerFailed       whoever is at the other end is away, slow or talks nonsense; connecting again may help
# └── PeerWaits    it is there, and takes nothing now; the connection may stay

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from verdicts.health import Health
from verdicts.message import encode
from verdicts.verdict import Verdict


class PeerFailed(Exception):
    """The other end is away, does not answer, refuses, or answers nonsense; the text is one line."""


class PeerWaits(PeerFailed):
    """The other end is connected and does not take what waits; asking again later may help."""


class Delivery(NamedTuple):
    """One verdict on its way out."""

    verdict: Verdict
    repeated: bool
    """Whether the other end may have got it before."""

    def content(self) -> dict[str, Any]:
        """Give the verdict as JSON has it on the line's wire, and ``repeated``."""
        return {**json.loads(encode(self.verdict)[1]), "repeated": self.repeated}


@dataclass(frozen=True, slots=True)
class LineNow:
    """What is known of the line at the moment.

    Attributes:
        name: of the line.
        health: the last that was heard; None before the first.
        silent: whether there has been no sign of life for a while, or never one.
    """

    name: str
    health: Health | None
    silent: bool

    @property
    def state(self) -> str:
        """The line's own state, or "silent"."""
        return "silent" if self.silent or self.health is None else self.health.state


class Output(Protocol):
    """One connection to the plant. Every method is called in one thread, and may block for seconds.

    Attributes:
        most_at_once: how many verdicts are handed over together; all of them come again when one fails.
    """

    most_at_once: int

    def connect(self) -> bool:
        """Reach the other end; after a failure, again.

        Returns:
            Whether it was reached; False where that shows only with the first verdict.

        Raises:
            PeerFailed: not now.
        """
        ...

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over verdicts, in order; returns when the other end has them all.

        Raises:
            PeerFailed: some may have arrived and some not; all come again after ``connect``.
        """
        ...

    def tell(self, line: LineNow) -> None:
        """Tell how the line fares; called a few times a second while connected.

        Raises:
            PeerFailed: the other end is away.
        """
        ...

    def close(self) -> None:
        """Leave, in order where that is possible; never raises. May be called at any time, and twice."""
        ...
