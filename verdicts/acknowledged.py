import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

import zmq

from verdicts.checks import NAME, MalformedMessage
from verdicts.connection import connected
from verdicts.curve import CurveKeys
from verdicts.gaps import Lost
from verdicts.health import Health, decode_health
from verdicts.request import REPEATED, SIGN_OF_LIFE_S, Acknowledge, Reply, decode_reply, encode_request
from verdicts.stream import VerdictStream, check_arguments
from verdicts.verdict import DECISIONS, Decision, Verdict, decode_verdict

_ACKNOWLEDGE_AT_ONCE: Final = 50


class SubscriberReplaced(Exception):
    """Another process has taken this name, and gets the verdicts now."""


class SubscriberRefused(Exception):
    """The line does not deliver to this name; the text is its reason."""


class AcknowledgedSubscription(VerdictStream):
    """The verdicts of one line, each delivered until it is acknowledged; made by ``acknowledged``.

    Nothing is lost while this process or the daemon is down: the daemon keeps each name's place in the
    journal, and delivery goes on after the last acknowledged verdict. A process that ends before it
    acknowledged a verdict gets it again when it comes back.

    Iterate without long pauses: signs of life are sent while you wait for the next verdict, and a subscriber
    that the line has not heard for three seconds counts as absent.

    Attributes:
        malformed: how many messages were dropped because they are not of schema 1.
        repeated: whether this name may have got the last verdict before: an earlier process under this name,
            or before a power cut that lost the acknowledgement. False where the line is of an older version,
            which does not tell.
    """

    def __init__(
        self,
        control: str,
        *,
        line: str,
        name: str,
        decisions: frozenset[Decision],
        automatic: bool,
        silence_s: float,
        on_lost: Callable[[Lost], None] | None,
        curve: CurveKeys | None,
        tell_within_s: float,
    ) -> None:
        super().__init__(control, line=line, silence_s=silence_s, on_lost=on_lost, curve=curve)
        self.repeated = False
        self._name = name
        self._decisions = decisions
        self._automatic = automatic
        self._client = secrets.token_hex(8)
        self._arrived: deque[tuple[int, Verdict, bool]] = deque()  # with row, and whether it is a repeat
        self._waiting: deque[Lost | tuple[Verdict, bool]] = deque()  # for the caller
        self._open: dict[tuple[str, int], int] = {}  # handed out: the verdict's row in the journal
        self._last: Verdict | None = None
        self._done_row: int | None = None  # up to here everything is dealt with
        self._joined = False
        self._refusal: Exception | None = None
        self._told_s = 0.0
        self._untold = 0
        self._untold_since_s = math.inf
        self._tell_within_s = tell_within_s

    def take(self, timeout_s: float) -> Verdict | None:
        """See ``VerdictStream.take``; this acknowledges the verdict before.

        Raises:
            VerdictsLost: the journal has lost verdicts before this subscriber got them, and there is no
                ``on_lost``; the next call goes on after them.
            LineSilent: no health for ``silence_s``; raised again after each further ``silence_s``.
            SubscriberReplaced: another process has taken the name.
            SubscriberRefused: the line does not deliver to this name.
        """
        until_s = time.monotonic() + timeout_s
        if self._automatic and self._last is not None:
            self._settle(self._last)
            self._last = None
        while not self._socket.closed:
            self._sort_arrived()
            while self._waiting:
                entry = self._waiting.popleft()
                if isinstance(entry, Lost):
                    self._report(entry)
                    continue
                self._last, self.repeated = entry
                if self._untold >= _ACKNOWLEDGE_AT_ONCE:
                    self._tell()
                return self._last
            if self._refusal is not None:
                raise self._refusal
            if not self._receive(until_s):
                break
        return None

    def join(self) -> None:
        """Wait until the line knows this name: from then on it keeps its place in the journal.

        Raises:
            LineSilent, SubscriberReplaced, SubscriberRefused: see ``take``.
        """
        while not self._joined and not self._socket.closed:
            if self._refusal is not None:
                raise self._refusal
            self._receive()

    def acknowledge(self, verdict: Verdict) -> None:
        """Say that this verdict, and all that came before it, is dealt with; it will not come again."""
        self._settle(verdict)
        if self._tell_at_s <= time.monotonic():
            self._tell()

    def close(self) -> None:
        """Leave; what was given and not acknowledged comes again. May be called twice."""
        if not self._socket.closed:
            if self._untold:
                self._tell()
            self._socket.close(linger=1000)

    def _settle(self, verdict: Verdict) -> None:
        key = (verdict.boot, verdict.seq)
        while key in self._open:
            self._done_row = self._open.pop(next(iter(self._open)))
            self._note_untold()

    def _note_untold(self) -> None:
        if not self._untold:
            self._untold_since_s = time.monotonic()
        self._untold += 1

    @property
    def _tell_at_s(self) -> float:
        """When the line is to hear of what is acknowledged; infinity where it has."""
        return self._untold_since_s + self._tell_within_s if self._untold and self._joined else math.inf

    def _tell(self, *, join: bool = False) -> None:
        """Send what is acknowledged, which is a sign of life too."""
        row = self._done_row if self._joined else None
        request = Acknowledge(0, self._name, self._client, join, row)
        try:
            self._socket.send(encode_request(request), zmq.NOBLOCK)
        except zmq.Again:
            self._untold_since_s = time.monotonic() + SIGN_OF_LIFE_S
            return  # nobody has been there for long: silence will tell
        self._told_s = time.monotonic()
        if self._joined:
            self._untold = 0

    def _receive(self, until_s: float = math.inf) -> bool:
        """Take one message, or raise LineSilent once nothing is left to read; False: none came in time."""
        while True:
            now = time.monotonic()
            if min(self._tell_at_s, self._told_s + SIGN_OF_LIFE_S) <= now:
                self._tell(join=not self._joined)
                now = time.monotonic()
            left_s = self._silence.left_s
            # What already waits is read first: a caller that was busy does not take that for silence.
            tell_s = min(self._tell_at_s, self._told_s + SIGN_OF_LIFE_S)
            wait_s = max(0.0, min(left_s, until_s - now, tell_s - now))
            if self._socket.poll(math.ceil(wait_s * 1000)):
                break
            if left_s <= 0:
                raise self._silent()
            if time.monotonic() >= until_s:
                return False
        try:
            self._hear(*decode_reply(self._socket.recv_multipart()))
        except MalformedMessage:
            self.malformed += 1
        return True

    def _hear(self, reply: Reply, frames: list[bytes]) -> None:
        match reply.reply:
            case "joined":
                self._joined = True
                # What has arrived and was not handed out comes again.
                self._done_row = None
                self._untold = 0
            case "rejoin":
                self._joined = False
                self._tell(join=True)
            case "replaced":
                self._refusal = SubscriberReplaced(f"{self._name}: another process came with this name")
            case "refused":
                self._refusal = SubscriberRefused(f"{self._name}: {reply.text}")
            case "verdicts" if reply.rows is not None and self._joined:
                verdicts = [decode_verdict(frame) for frame in frames]
                repeated = [reply.text == REPEATED] * len(verdicts)
                self._arrived.extend(zip(reply.rows, verdicts, repeated, strict=True))
            case "health" if frames:
                self._take_health(decode_health(frames[0]))

    def _take_health(self, health: Health) -> None:
        if health.line != self._line:
            self.malformed += 1
            return
        self._silence.heard(health)
        # What could not be journaled will never be delivered, so health has to tell of it.
        if health.journal is not None and health.journal.state == "failed":
            self._sort_arrived()
            lost = self._gaps.health(health.boot, health.seq)
            if lost is not None:
                self._waiting.append(lost)

    def _sort_arrived(self) -> None:
        while self._arrived:
            row, verdict, repeated = self._arrived.popleft()
            key = (verdict.boot, verdict.seq)
            new, lost = self._gaps.verdict(*key)
            if lost is not None:
                self._waiting.append(lost)
            if new and verdict.decision in self._decisions:
                self._open[key] = row
                self._waiting.append((verdict, repeated))
            elif key in self._open:
                self._open[key] = row  # sent again while the caller deals with it
            elif not self._open:
                self._done_row = row  # not asked for, or acknowledged before and the line has forgotten it
                self._note_untold()

    def _connected(self) -> zmq.SyncSocket:
        return connected(zmq.DEALER, self._address, self._curve)


def acknowledged(
    control: str,
    *,
    line: str,
    name: str,
    decisions: Collection[Decision] = DECISIONS,
    automatic: bool = True,
    silence_s: float = 3.0,
    on_lost: Callable[[Lost], None] | None = None,
    curve: CurveKeys | None = None,
    tell_within_s: float = 0.0,
) -> AcknowledgedSubscription:
    """Subscribe to the verdicts of one line so that each comes until it is acknowledged.

    A name that the line does not know begins with the next verdict; from then on the line keeps its place,
    over restarts on both sides.

    Args:
        control: the config's ``control``, such as ``tcp://127.0.0.1:5561``.
        line: name of the line.
        name: of this subscriber, one process at a time; with ``curve`` the name of its key.
        decisions: the decisions that are wanted; the others are acknowledged without being given.
        automatic: whether asking for the next verdict acknowledges the one before; otherwise only
            ``acknowledge`` does.
        silence_s: seconds without health until ``LineSilent`` is raised; health comes every second.
        on_lost: called with the missing verdicts instead of raising ``VerdictsLost``.
        curve: keys, where the line has a section ``curve``.
        tell_within_s: seconds until the line hears of what is acknowledged. Above 0 it hears of several at
            once, which costs it less; a process that is killed gets that much again, marked as repeated.

    Returns:
        An iterator and context manager; it never ends by itself.

    Raises:
        ValueError: an argument is wrong; the text names it, what was found and what was expected.
    """
    check_arguments(line=line, decisions=decisions, silence_s=silence_s)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"name: found {name!r}, expected 1 to 64 letters, digits, '_', '.' or '-'")
    return AcknowledgedSubscription(
        control,
        line=line,
        name=name,
        decisions=frozenset(decisions),
        automatic=automatic,
        silence_s=silence_s,
        on_lost=on_lost,
        curve=curve,
        tell_within_s=tell_within_s,
    )
