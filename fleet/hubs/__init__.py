"""The seam of the hubs: where the verdicts of all lines come together before they go into the lake.

A hub keeps each verdict for days, in one order for all lines, and gives each a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from foundation.errors import printable


class HubFailed(Exception):
    """The hub cannot be reached, or refuses; ``str(error)`` is one line. Nothing is known to be stored."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split()))[:500]


@dataclass(frozen=True, slots=True)
class Entry:
    """A verdict on its way to the hub.

    Attributes:
        plant: whose line it is.
        line: which gave it.
        boot: of the line's daemon.
        seq: within the boot; with it, what tells a duplicate.
        product: that was judged; None where it is not known.
        payload: the verdict, as the line published it.
    """

    plant: str
    line: str
    boot: str
    seq: int
    product: str | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A verdict as the hub gives it back; its content was written by others and is not checked yet.

    Attributes:
        position: in the hub; grows, with gaps.
        stored_at: when the hub took it, by its own clock.
        plant: whose line it is; empty where the message does not tell.
        product: None where it is not known.
        payload: the verdict.
    """

    position: int
    stored_at: datetime
    plant: str
    product: str | None
    payload: bytes


class Hub(Protocol):
    """One hub. Every method may be called in any thread, and raises ``HubFailed``."""

    name: str
    """Where it is, without passwords, for what is said about it."""

    def connect(self) -> None:
        """Be connected from here on, and make what is missing there; does nothing while connected.

        Raises:
            HubFailed: it is away; trying again later may help.
            InputError: a person has to mend it: it loses what it has acknowledged, or is not ours.
        """

    def last(self, plant: str, line: str) -> tuple[str, int] | None:
        """Give boot and seq of the last verdict of a line, where it cannot tell duplicates by itself."""

    def put(self, entries: Sequence[Entry]) -> None:
        """Store verdicts of one line in their order. When it returns, a power cut does not lose them."""

    def identity(self) -> str:
        """Name this very hub: positions in another one, made anew under the same name, mean nothing."""

    def after(self, position: int, limit: int, wait_s: float) -> list[Stored]:
        """Give what follows a position, in order; waits for something to come, and gives nothing then."""

    def may_forget(self, position: int) -> None:
        """Say that what is up to a position and older than the hub keeps things is not needed any more."""

    def close(self) -> None:
        """Leave; may be called twice, and does not raise."""
