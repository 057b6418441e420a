import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from verdicts.checks import MalformedMessage
from verdicts.connection import connected
from verdicts.curve import CurveKeys
from verdicts.health import Health, decode_health
from verdicts.request import (
    AcceptDrift,
    Expect,
    Reload,
    Replay,
    ReplaySince,
    Reply,
    Request,
    Select,
    Selftest,
    Status,
    Trigger,
    decode_reply,
    encode_request,
)
from verdicts.statistics import Statistics, decode_statistics
from verdicts.verdict import Verdict, decode_verdict

# ControlSilent    no answer from the line's control address
# ControlRefused   the line answered that it will not


class ControlSilent(TimeoutError):
    """No answer came: no daemon is at the control address, it ended, or it does not let this key in."""


class ControlRefused(Exception):
    """The line refused the request; the text is its reason."""


class LineControl:
    """A client of the control address of a line. Belongs to one thread.

    Attributes:
        kept_from: after a replay: when the oldest verdict in the journal was captured; None before the first
            replay, or when the journal is empty.
    """

    def __init__(self, address: str, *, curve: CurveKeys | None = None, timeout_s: float = 3.0) -> None:
        """Connect in the background.

        Args:
            address: the config's ``control``, such as ``tcp://127.0.0.1:5561``.
            curve: keys, where the line has a section ``curve``.
            timeout_s: how long to wait for each answer.

        Raises:
            ValueError: an argument is wrong; the text names it, what was found and what was expected.
        """
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise ValueError(f"timeout_s: found {timeout_s!r}, expected seconds above 0")
        self.kept_from: datetime | None = None
        self._address = address
        self._curve = curve
        self._timeout_s = timeout_s
        self._last_id = 0
        self._stands = False
        """Whether the connection is known to stand."""
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. May be called twice."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._events.close(linger=0)
            self._socket.close()

    def replay(self, boot: str, first: int, last: int) -> Iterator[Verdict]:
        """Read verdicts of one boot from the journal, in order of ``seq``.

        Args:
            boot: of the daemon.
            first: the first ``seq``.
            last: the last ``seq``, included. What the journal does not have is left out.

        Raises:
            ControlSilent: no answer.
            ControlRefused: the journal cannot be read.
            MalformedMessage: the answer is not of schema 1, or ``boot``, ``first`` or ``last`` is wrong.
        """
        following: int | None = first
        while following is not None and following <= last:
            reply, frames = self._ask(Replay(self._next_id(), boot, following, last), "page")
            following = self._note_page(reply)
            yield from map(decode_verdict, frames)

    def replay_since(self, moment: datetime) -> Iterator[Verdict]:
        """Read all verdicts that were journaled at a moment or later.

        Args:
            moment: aware of its time zone.

        Raises:
            ControlSilent: no answer.
            ControlRefused: the journal cannot be read.
            MalformedMessage: the answer is not of schema 1.
        """
        since = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        following: int | None = 0
        while following is not None:
            reply, frames = self._ask(ReplaySince(self._next_id(), since, following), "page")
            following = self._note_page(reply)
            yield from map(decode_verdict, frames)

    def status(self) -> Health:
        """Ask for the health of the line.

        Raises:
            ControlSilent: no answer.
            ControlRefused: there is none yet.
        """
        return decode_health(self._ask(Status(self._next_id()), "health")[1][0])

    def statistics(self) -> Statistics | None:
        """Ask for fault reasons, rates and latencies; None from a line of an older version.

        Raises:
            ControlSilent: no answer.
            ControlRefused: there is none yet.
            MalformedMessage: the answer cannot be read.
        """
        _, frames = self._ask(Status(self._next_id()), "health")
        return decode_statistics(frames[1]) if len(frames) > 1 else None

    def reload(self) -> str:
        """Have the line read its config again; give its answer.

        Raises:
            ControlSilent: no answer.
            ControlRefused: the config is wrong, or this client has no right; the line goes on as it was.
        """
        return self._ask(Reload(self._next_id()), "done")[0].text or ""

    def select(self, product: str) -> str:
        """Have the line judge by another of its products; give its answer.

        Raises:
            ControlSilent: no answer.
            ControlRefused: there is no such product, or this client has no right.
        """
        return self._ask(Select(self._next_id(), product), "done")[0].text or ""

    def trigger(self, camera: str, part: str | None = None) -> str:
        """Say that a part is in view of a camera with ``trigger: {by: software}``; give the line's answer.

        The answer comes at once; one verdict follows, which carries the part's name.

        Args:
            camera: name of the camera.
            part: name of the part, 1 to 200 characters; None without one.

        Raises:
            ControlSilent: no answer.
            ControlRefused: there is no such camera, or this client has no right.
            MalformedMessage: ``camera`` or ``part`` is no such name.
        """
        return self._ask(Trigger(self._next_id(), camera, part), "done")[0].text or ""

    def selftest(self) -> str:
        """Have the line judge its golden samples now, between two parts.

        Returns:
            The line's answer. It begins with "passed", or with "failed" when a sample got another verdict or
            score.

        Raises:
            ControlSilent: no answer.
            ControlRefused: the line has no golden samples, or this client has no right.
        """
        return self._ask(Selftest(self._next_id()), "done")[0].text or ""

    def expect(
        self, within_s: float, *, camera: str | None = None, part: str | None = None, by: str | None = None
    ) -> str:
        """Announce a known bad part, and wait until the line has rejected it.

        ``timeout_s`` of this client counts after ``within_s``.

        Args:
            within_s: seconds until it must have been rejected.
            camera: which will see it; None for any.
            part: its name, where the line knows names; None for any part.
            by: who sends it, for the journal.

        Returns:
            The line's answer. It begins with "passed", or with "failed" when the part was not rejected.

        Raises:
            ControlSilent: no answer.
            ControlRefused: the line has no such camera, or this client has no right.
            MalformedMessage: an argument is wrong.
        """
        request = Expect(self._next_id(), camera, part, within_s, by)
        return self._ask(request, "done", within_s)[0].text or ""

    def accept_drift(self, camera: str | None = None, *, by: str | None = None) -> str:
        """Have the line take how the parts look now for normal; give its answer.

        Args:
            camera: at which; None for all.
            by: who says so, for the journal.

        Raises:
            ControlSilent: no answer.
            ControlRefused: too few parts have passed, the line does not watch for drift, or this client has
                no right.
        """
        return self._ask(AcceptDrift(self._next_id(), camera, by), "done")[0].text or ""

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _note_page(self, reply: Reply) -> int | None:
        self.kept_from = None if reply.kept_from is None else datetime.fromisoformat(reply.kept_from)
        return reply.next

    def _ask(self, request: Request, expected: str, longer_s: float = 0) -> tuple[Reply, list[bytes]]:
        frame = encode_request(request)
        while self._events.poll(0):
            self._broke()  # before this request
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            self._start_over()
            self._socket.send(frame, zmq.NOBLOCK)
        end_s = time.monotonic() + self._timeout_s + longer_s
        while self._answered(end_s):
            reply, frames = decode_reply(self._socket.recv_multipart())
            if reply.id != request.id:
                continue  # late: its request was given up
            if reply.reply == "refused":
                raise ControlRefused(reply.text or "refused")
            if reply.reply != expected or (expected == "health" and not frames):
                raise MalformedMessage(f"reply: found {reply.reply}, expected {expected}")
            return reply, frames
        ended = time.monotonic() < end_s
        # libzmq gives some connections up for good, as after a stranger on the port.
        self._start_over()
        if ended:
            raise ControlSilent(f"the daemon at {self._address} ended before it answered")
        hint = "" if self._curve is None else ", and is this key among its clients"
        raise ControlSilent(
            f"no answer from {self._address} for {self._timeout_s + longer_s:g} s: does the daemon run{hint}?"
        )

    def _answered(self, end_s: float) -> bool:
        """Wait for a message; False when none came in time, or the connection broke.

        A daemon that starts again knows nothing of the request.
        """
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)
        while woken := dict(poller.poll(max(0, math.ceil((end_s - time.monotonic()) * 1000)))):
            if self._socket in woken:
                return True  # also what came before the connection broke
            if self._broke():
                return bool(self._socket.poll(0))
        return False

    def _broke(self) -> bool:
        """Take one event of the connection; whether it was its end, after it had stood."""
        stands = recv_monitor_message(self._events)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        stood, self._stands = self._stands, stands
        return stood and not stands

    def _start(self) -> None:
        self._stands = False
        self._socket = connected(zmq.DEALER, self._address, self._curve, watch=self._watch)

    def _watch(self, socket: zmq.SyncSocket) -> None:
        self._events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)

    def _start_over(self) -> None:
        self.close()
        self._start()
