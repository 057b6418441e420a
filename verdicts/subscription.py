import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

import zmq

from verdicts.checks import NAME, MalformedMessage
from verdicts.connection import connected
from verdicts.control import ControlRefused, ControlSilent, LineControl
from verdicts.curve import CurveKeys
from verdicts.gaps import Lost
from verdicts.health import Health
from verdicts.message import decode
from verdicts.request import LARGEST
from verdicts.stream import VerdictStream, check_arguments
from verdicts.verdict import DECISIONS, Decision, Verdict

# About 70 MB when full. A subscriber that falls further behind loses verdicts, and is told so.
_RECEIVE_QUEUE: Final = 100_000
# A subscriber waits no longer for the journal: parts move on, and what is not known by then is lost to it.
_REPLAY_TIMEOUT_S: Final = 2.0

_log = logging.getLogger(__name__)


class Subscription(VerdictStream):
    """The verdicts of one line as they are published; made by ``subscribe``.

    After an exception iteration can go on with the next verdict: nothing that arrived is skipped. Belongs
    to the thread that iterates.

    Attributes:
        malformed: how many messages were dropped because they are not of schema 1.
    """

    def __init__(
        self,
        address: str,
        *,
        line: str,
        cameras: frozenset[str] | None,
        decisions: frozenset[Decision],
        silence_s: float,
        on_lost: Callable[[Lost], None] | None,
        control: str | None,
        curve: CurveKeys | None,
    ) -> None:
        super().__init__(address, line=line, silence_s=silence_s, on_lost=on_lost, curve=curve)
        self._cameras = cameras
        self._decisions = decisions
        self._journal = None
        if control is not None:
            self._journal = LineControl(control, curve=curve, timeout_s=_REPLAY_TIMEOUT_S)
        self._boot: str | None = None
        self._last_seq = 0  # of that boot
        self._due: Iterator[Verdict | Lost] = iter(())  # what a message brought with it
        self._last_malformed: MalformedMessage | None = None
        self._warned = False

    def take(self, timeout_s: float) -> Verdict | None:
        until_s = time.monotonic() + timeout_s
        while not self._socket.closed:
            for entry in self._due:
                if isinstance(entry, Lost):
                    self._report(entry)
                elif self._asked_for(entry):
                    return entry
            if not self._receive(until_s):
                break
        return None

    def fileno(self) -> int:
        """Give a descriptor for ``select``: it is ready when something has come since the last ``take``.

        It tells of news only: take until nothing is left before you wait for it again.
        """
        return int(self._socket.fd)

    def close(self) -> None:
        self._due = iter(())
        self._socket.close()
        if self._journal is not None:
            self._journal.close()

    def _receive(self, until_s: float = math.inf) -> bool:
        """Take one message, or raise LineSilent once nothing is left to read; False: none came in time."""
        # What already waits is read first: a caller that was busy for long does not take that for silence.
        wait_s = max(0.0, min(self._silence.left_s, until_s - time.monotonic()))
        if not self._socket.poll(math.ceil(wait_s * 1000)):
            if self._silence.left_s <= 0:
                dropped = f"; {self.malformed} malformed messages, the last: {self._last_malformed}"
                raise self._silent(dropped if self.malformed else "")
            return time.monotonic() < until_s
        try:
            message = _decode(self._socket.recv_multipart())
        except MalformedMessage as error:
            self.malformed += 1
            self._last_malformed = error
            return True
        if isinstance(message, Health):
            self._silence.heard(message)
            self._warn_of_unknown_cameras(message)
        self._due = self._brought(message)
        return True

    def _brought(self, message: Verdict | Health) -> Iterator[Verdict | Lost]:
        """Give what is due now, in order: what was missed before a message, and the message's verdict."""
        if self._boot is not None and message.boot != self._boot:
            # The last verdicts of a daemon that was killed, and those that the next one wrote for it.
            for verdict in self._from_journal(self._boot, self._last_seq + 1, LARGEST):
                new, lost = self._gaps.verdict(verdict.boot, verdict.seq)
                if lost is not None:
                    yield lost
                if new:
                    yield verdict
        verdict_is_new = False
        if isinstance(message, Verdict):
            verdict_is_new, lost = self._gaps.verdict(message.boot, message.seq)
        else:
            lost = self._gaps.health(message.boot, message.seq)
        self._last_seq = message.seq if message.boot != self._boot else max(self._last_seq, message.seq)
        self._boot = message.boot
        if lost is not None:
            yield from self._filled(lost)
        if isinstance(message, Verdict) and verdict_is_new:
            yield message

    def _filled(self, lost: Lost) -> Iterator[Verdict | Lost]:
        """Fill a gap from the journal; what that does not have is lost."""
        due = lost.first
        for verdict in self._from_journal(lost.boot, lost.first, lost.last):
            if verdict.seq > due:
                yield Lost(lost.boot, due, verdict.seq - 1)
            due = verdict.seq + 1
            yield verdict
        if due <= lost.last:
            yield Lost(lost.boot, due, lost.last)

    def _from_journal(self, boot: str, first: int, last: int) -> Iterator[Verdict]:
        if self._journal is None:
            return
        try:
            yield from self._journal.replay(boot, first, last)
        except (ControlSilent, ControlRefused, MalformedMessage) as error:
            _log.warning(
                "%s: verdicts from %d of boot %s cannot be replayed: %s", self._line, first, boot, error
            )

    def _connected(self) -> zmq.SyncSocket:
        # All of the line, whatever is asked for: gaps in ``seq`` show only in the whole stream.
        return connected(
            zmq.SUB,
            self._address,
            self._curve,
            receive_queue=_RECEIVE_QUEUE,
            subscription=f"{self._line}/",
        )

    def _warn_of_unknown_cameras(self, health: Health) -> None:
        """A misspelt name would otherwise look like a line on which nothing is ever rejected."""
        unknown = (self._cameras or frozenset()) - health.cameras.keys()
        if unknown and not self._warned and health.state != "starting":
            self._warned = True
            found = ", ".join(sorted(health.cameras)) or "none"
            _log.warning("%s has no camera %s, only %s", self._line, ", ".join(sorted(unknown)), found)

    def _asked_for(self, verdict: Verdict) -> bool:
        return verdict.decision in self._decisions and (
            self._cameras is None or verdict.camera in self._cameras
        )


def subscribe(
    address: str,
    *,
    line: str,
    cameras: Collection[str] | None = None,
    decisions: Collection[Decision] = DECISIONS,
    silence_s: float = 3.0,
    on_lost: Callable[[Lost], None] | None = None,
    control: str | None = None,
    curve: CurveKeys | None = None,
) -> Subscription:
    """Subscribe to the verdicts of one line.

    The connection is made in the background, and again when it breaks. The first verdict is the first one
    that is published after the daemon knows of the subscription.

    Args:
        address: where the daemon publishes, such as ``tcp://127.0.0.1:5560``.
        line: name of the line.
        cameras: names of the cameras whose verdicts are wanted; None for all.
        decisions: the decisions that are wanted.
        silence_s: seconds without health until ``LineSilent`` is raised; health comes every second.
        on_lost: called with the missing verdicts instead of raising ``VerdictsLost``.
        control: the config's ``control``, such as ``tcp://127.0.0.1:5561``: what was missed is fetched from
            the journal, in order, and only what the journal does not have is lost.
        curve: keys, where the line has a section ``curve``.

    Returns:
        An iterator and context manager; it never ends by itself.

    Raises:
        ValueError: an argument is wrong; the text names it, what was found and what was expected.
    """
    check_arguments(line=line, decisions=decisions, silence_s=silence_s)
    if cameras is not None and (
        isinstance(cameras, str) or not cameras or not all(NAME.fullmatch(name) for name in cameras)
    ):
        raise ValueError(f"cameras: found {cameras!r}, expected names of cameras, or None for all")
    wanted = None if cameras is None else frozenset(cameras)
    return Subscription(
        address,
        line=line,
        cameras=wanted,
        decisions=frozenset(decisions),
        silence_s=silence_s,
        on_lost=on_lost,
        control=control,
        curve=curve,
    )


def read_health(address: str, *, line: str, timeout_s: float = 3.0, curve: CurveKeys | None = None) -> Health:
    """Wait for the next health of one line.

    Raises:
        LineSilent: none came within ``timeout_s`` seconds.
        ValueError: an argument is wrong; the text names it, what was found and what was expected.
    """
    with subscribe(address, line=line, silence_s=timeout_s, curve=curve) as subscription:
        while subscription.health is None:
            subscription._receive()
        return subscription.health


def _decode(parts: list[bytes]) -> Verdict | Health:
    if len(parts) != 2:
        raise MalformedMessage(f"message: found {len(parts)} parts, expected topic and payload")
    return decode(*parts)
