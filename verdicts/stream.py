"""What both subscriptions are: an iterator over a line's verdicts that tells of silence and of gaps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

import zmq

from verdicts.checks import NAME, listed
from verdicts.curve import CurveKeys
from verdicts.gaps import Gaps, Lost
from verdicts.health import Health
from verdicts.silence import LineSilent, Silence
from verdicts.verdict import DECISIONS, Decision, Verdict


class VerdictsLost(Exception):
    """The verdicts ``first`` to ``last`` (both included) of ``boot`` were published and did not arrive."""

    def __init__(self, first: int, last: int, boot: str) -> None:
        super().__init__(f"lost {last - first + 1} verdicts: {first} to {last} of boot {boot}")
        self.first = first
        self.last = last
        self.boot = boot


class VerdictStream(ABC):
    """The verdicts of one line, in order of ``seq``.

    Attributes:
        malformed: how many messages were dropped because they are not of schema 1.
    """

    def __init__(
        self,
        address: str,
        *,
        line: str,
        silence_s: float,
        on_lost: Callable[[Lost], None] | None,
        curve: CurveKeys | None,
    ) -> None:
        self.malformed = 0
        self._address = address
        self._line = line
        self._on_lost = on_lost
        self._curve = curve
        self._gaps = Gaps()
        self._socket = self._connected()
        self._silence = Silence(line, address, silence_s)

    @property
    def health(self) -> Health | None:
        """The last health of the line, whichever verdicts were asked for."""
        return self._silence.health

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Verdict:
        """Wait for the next verdict that was asked for, as ``take`` does."""
        verdict = self.take(math.inf)
        if verdict is None:
            raise StopIteration
        return verdict

    @abstractmethod
    def take(self, timeout_s: float) -> Verdict | None:
        """Wait for the next verdict that was asked for, and no longer than that.

        Args:
            timeout_s: seconds; 0 takes only what has arrived.

        Returns:
            The verdict; None when none came in time, or the subscription was closed.

        Raises:
            VerdictsLost: verdicts are missing and there is no ``on_lost``; the next call goes on after them.
            LineSilent: no health for ``silence_s``; raised again after each further ``silence_s``.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Leave the line; a running iteration ends. May be called twice."""

    @abstractmethod
    def _connected(self) -> zmq.SyncSocket:
        """Make the socket; it connects in the background."""

    def _silent(self, detail: str = "") -> LineSilent:
        if self._silence.goes_on:
            self._socket.close()
            self._socket = self._connected()
        return self._silence.error(detail)

    def _report(self, lost: Lost) -> None:
        if self._on_lost is None:
            raise VerdictsLost(lost.first, lost.last, lost.boot)
        self._on_lost(lost)


def check_arguments(*, line: str, decisions: Collection[Decision], silence_s: float) -> None:
    """Refuse what no subscription can be made with.

    Raises:
        ValueError: an argument is wrong; the text names it, what was found and what was expected.
    """
    if not isinstance(line, str) or not NAME.fullmatch(line):
        raise ValueError(f"line: found {line!r}, expected the name of a line")
    if not (math.isfinite(silence_s) and silence_s > 0):
        raise ValueError(f"silence_s: found {silence_s!r}, expected seconds above 0")
    if isinstance(decisions, str) or not decisions or not DECISIONS.issuperset(decisions):
        raise ValueError(f"decisions: found {decisions!r}, expected some of {listed(DECISIONS)}")
