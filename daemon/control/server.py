"""The control address of a line: replay, acknowledged delivery, status and commands."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import zmq

from daemon.control.positions import Positions
from daemon.control.subscribers import Subscribers
from daemon.host.access import Access, Peer
from daemon.host.bind import bind
from daemon.host.scheduling import give_way
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from foundation.errors import InputError, printable
from verdicts.checks import MAX_BYTES, MalformedMessage
from verdicts.health import SubscriberHealth
from verdicts.request import (
    AcceptDrift,
    Acknowledge,
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
    decode_request,
    encode_reply,
)
from verdicts.verdict import Verdict, decode_verdict

Commands = Callable[[str, dict[str, Any]], "Future[str]"]
"""Hands a command and its arguments to the line; the result is the reply, an InputError its refusal."""

_READ_AT_ONCE: Final = 32
_FLOOD_PAUSE_S: Final = 0.001
_WAITING_REQUESTS: Final = 100  # of one client
_WAITING_REPLIES: Final = 100  # for one client
_MOST_COMMANDS: Final = 8  # that the line is busy with
_PAGE: Final = 500
_PAGE_BYTES: Final = 1_000_000
_CLOSE_S: Final = 1.0
_log = logging.getLogger("inspectd")


class Control(threading.Thread):
    """Answers at the control address of a line, in a thread of its own.

    However many clients there are and whatever they send, they cost the line no more than this thread.
    Verdicts are delivered from the journal, so there is no queue that a slow client could fill.

    Of what the line calls (``journaled``, ``health``, ``require``, the snapshots, ``close``), only ``close``
    blocks.
    """

    def __init__(
        self,
        address: str,
        journal: Path,
        *,
        commands: Commands,
        access: Access,
        required_subscribers: Collection[str] = (),
        resend_after_s: float = 1.0,
        journal_may_wait: bool = False,
    ) -> None:
        """Bind the socket; ``start`` begins to answer.

        Args:
            address: where to answer; the file of an ``ipc://`` address is made for owner and group alone.
            journal: file of the journal; it is there. The subscribers' positions are kept beside it.
            commands: takes "reload", "select" with ``product``, "trigger" with ``camera``, ``part`` and
                ``at_ns``, "selftest", and "expect" with ``camera``, ``part``, ``within_s`` and ``by``; called
                in this thread.
            access: who may connect; to be closed after this.
            required_subscribers: names that ``subscribers`` shows even while they are absent.
            resend_after_s: seconds without acknowledgement after which verdicts are sent again.
            journal_may_wait: whether to go on when the journal cannot be read yet.

        Raises:
            InputError: the address is in use or cannot be bound, the journal cannot be read, or the file
                with the positions is not ours.
        """
        super().__init__(name="control", daemon=True)
        self._journal_file = journal
        self._reader: JournalReader | None = None
        self._reader_inode: tuple[int, int] | None = None
        self._commands = commands
        self._access = access
        self._guarded_by_file = address.startswith("ipc://")
        self._positions = Positions(journal.with_name(journal.name + "-subscribers"))
        self._subscribers = Subscribers(self._positions, self._send)
        self._snapshot: dict[str, SubscriberHealth] = {}
        self._statistics: tuple[bytes, ...] = ()
        self._published_row: int | None = None
        self._dropped = 0
        self._last_health: bytes | None = None
        self._untold_health: bytes | None = None
        self._pending_commands = 0
        self._done: deque[tuple[bytes, int, Future[str]]] = deque()
        self._ending = threading.Event()
        self._closed = False
        self.require(required_subscribers, resend_after_s)
        try:
            with self._journal():
                self._snapshot = self._subscribers.health()
        except InputError:
            if not journal_may_wait:
                raise
        self._socket = access.context.socket(zmq.ROUTER)
        self._socket.router_mandatory = True  # so that a lost or stuffed client is noticed
        self._socket.rcvhwm = _WAITING_REQUESTS
        self._socket.sndhwm = _WAITING_REPLIES
        # What is somewhat too long is counted and dropped; much longer, and ZeroMQ drops the connection.
        self._socket.maxmsgsize = 2 * MAX_BYTES
        access.guard(self._socket)
        try:
            bind(self._socket, address, "control")
        except InputError:
            self._socket.close()
            raise
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # What the line calls.

    @property
    def subscribers(self) -> Mapping[str, SubscriberHealth]:
        """The state of the required subscribers, and of those that came since the start, by name."""
        required = dict.fromkeys(
            self._subscribers.required, SubscriberHealth(present=False, unacknowledged=0)
        )
        return required | self._snapshot

    @property
    def dropped_messages(self) -> int:
        """How many messages were malformed, oversized or not allowed, and connections refused."""
        return self._dropped + self._access.refused

    def journaled(self, row: int | None = None) -> None:
        """Tell that the journal has grown.

        Args:
            row: up to which all is published; later rows may still be taken back. None for all there is.
        """
        self._published_row = row
        os.eventfd_write(self._wake, 1)

    def health(self, topic: bytes, payload: bytes) -> None:
        """Pass a health on to the subscribers, and to those who ask for the status."""
        self._last_health = self._untold_health = payload
        os.eventfd_write(self._wake, 1)

    def statistics(self, payload: bytes) -> None:
        """Keep for those who ask for the status what health does not tell."""
        self._statistics = (payload,)

    def require(self, subscribers: Collection[str], resend_after_s: float) -> None:
        """Change which subscribers are required, and when verdicts are sent again."""
        self._subscribers.required = tuple(subscribers)
        self._subscribers.resend_after_s = resend_after_s

    def close(self) -> None:
        """Deliver what is journaled to whoever is there, for a second at the most, and end."""
        if self._closed:
            return
        self._closed = True
        self._ending.set()
        os.eventfd_write(self._wake, 1)
        if self.is_alive():
            self.join()
        elif not self._socket.closed:
            self._socket.close(linger=0)  # never started
        os.close(self._wake)

    # The thread.

    def run(self) -> None:
        """Answer until ``close``."""
        give_way()
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        more, give_up_s = False, float("inf")
        while True:
            wait_s = 0.0 if more else self._subscribers.next_resend_s()
            woken = dict(poller.poll(int(wait_s * 1000)))
            if self._wake in woken:
                os.eventfd_read(self._wake)
            ending = self._ending.is_set()
            try:
                more = self._turn()
            except Exception:
                # A mistake of ours may cost a reply; it may not end delivery.
                _log.exception("control: internal error")
                more = False
                time.sleep(_FLOOD_PAUSE_S)
            if ending:
                give_up_s = min(give_up_s, time.monotonic() + _CLOSE_S)
                if self._has_delivered() or time.monotonic() >= give_up_s:
                    break
        with suppress(InputError), self._journal() as reader:
            self._positions.write(reader.hash_of, at_once=True)
        self._close_reader()
        self._socket.close(linger=int(_CLOSE_S * 1000))

    def _turn(self) -> bool:
        """Do a bounded part of all that is to be done; True when more of it waits."""
        more = False
        for _ in range(_READ_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            self._take(frames)
        else:
            # Whoever floods waits, and the line's thread gets its share of the interpreter.
            time.sleep(_FLOOD_PAUSE_S)
            more = True
        while self._done:
            self._answer_command(*self._done.popleft())
        payload, self._untold_health = self._untold_health, None
        if payload is not None:
            self._subscribers.tell_health(payload)
        try:
            with self._journal() as reader:
                more |= self._subscribers.deliver(reader, self._last_row(reader))
                self._positions.write(reader.hash_of)
        except InputError:
            pass  # the line says so in its health; it is tried again
        self._snapshot = self._subscribers.health()
        return more

    def _has_delivered(self) -> bool:
        return self._pending_commands == 0 and self._untold_health is None and self._subscribers.are_done()

    def _take(self, frames: list[zmq.Frame]) -> None:
        connection = frames[0].bytes
        peer = self._access.peer_of(frames[-1])
        if len(frames) != 2 or len(frames[1]) > MAX_BYTES or peer is None:
            self._dropped += 1
            return
        try:
            request = decode_request(frames[1].bytes)
        except MalformedMessage:
            self._dropped += 1
            return
        try:
            self._answer(connection, request, peer)
        except InputError as error:
            self._send(connection, Reply("refused", request.id, text=str(error)))

    def _answer(self, connection: bytes, request: Request, peer: Peer) -> None:
        match request:
            case Replay() | ReplaySince():
                with self._journal() as reader:
                    self._send(connection, *_page(reader, request))
            case Acknowledge():
                if peer.name not in {None, request.name}:
                    self._dropped += 1
                    raise InputError(f"name: found {request.name}, expected {peer.name}, the name of the key")
                with self._journal() as reader:
                    self._dropped += not self._subscribers.hear(connection, request, self._last_row(reader))
                # Last: whoever has seen a health has its place, and gets every verdict from here on.
                if request.join and self._last_health is not None:
                    self._send(connection, Reply("health", frames=1), (self._last_health,))
            case Status():
                if self._last_health is None:
                    raise InputError("the line has no health yet; ask again in a second")
                # After the health, where older clients do not look.
                frames = (self._last_health, *self._statistics)
                self._send(connection, Reply("health", request.id, len(frames)), frames)
            case Reload():
                self._command(connection, request.id, peer, "reload", {})
            case Select():
                self._command(connection, request.id, peer, "select", {"product": request.product})
            case Trigger():
                arguments = {"camera": request.camera, "part": request.part, "at_ns": time.monotonic_ns()}
                self._command(connection, request.id, peer, "trigger", arguments)
            case Selftest():
                self._command(connection, request.id, peer, "selftest", {})
            case AcceptDrift():
                given = {"camera": request.camera, "by": peer.name or request.by}
                self._command(connection, request.id, peer, "accept_drift", given)
            case Expect():
                # Only what is given; who a client is, its key says better.
                part: dict[str, Any] = {"part": request.part, "within_s": request.within_s}
                given = {"camera": request.camera, "by": peer.name or request.by}
                self._command(connection, request.id, peer, "expect", part | given)

    def _command(
        self, connection: bytes, request_id: int, peer: Peer, name: str, arguments: dict[str, Any]
    ) -> None:
        if not (peer.control or (peer.name is None and self._guarded_by_file)):
            self._dropped += 1
            needed = "keys (the section curve), or an ipc:// address as control"
            if peer.name is not None:
                needed = f"a key with control: true; the key of {peer.name} has control: false"
            raise InputError(f"{name} needs {needed}")
        if self._pending_commands >= _MOST_COMMANDS:
            raise InputError(f"{name}: the line is busy with other commands; try again")
        if name != "trigger":  # each part has one
            words = [name, *(str(value) for value in arguments.values() if value is not None)]
            _log.info("control: %s asks: %s", peer.name or "a local user", printable(" ".join(words)))
        future = self._commands(name, arguments)
        self._pending_commands += 1
        future.add_done_callback(lambda done: self._command_done(connection, request_id, done))

    def _command_done(self, connection: bytes, request_id: int, done: "Future[str]") -> None:
        """Bring the result from the line's thread into this one."""
        self._done.append((connection, request_id, done))
        if not self._closed:
            os.eventfd_write(self._wake, 1)

    def _answer_command(self, connection: bytes, request_id: int, done: "Future[str]") -> None:
        self._pending_commands -= 1
        if done.cancelled():
            self._send(connection, Reply("refused", request_id, text="the line is stopping"))
            return
        error = done.exception()
        if error is None:
            self._send(connection, Reply("done", request_id, text=done.result()))
        elif isinstance(error, InputError):
            self._send(connection, Reply("refused", request_id, text=str(error)))
        else:
            _log.error("control: command failed", exc_info=error)
            self._send(connection, Reply("refused", request_id, text=f"failed: {error}"))

    def _send(self, connection: bytes, reply: Reply, frames: Sequence[bytes] = ()) -> bool:
        try:
            self._socket.send_multipart((connection, encode_reply(reply), *frames), zmq.NOBLOCK)
        except zmq.ZMQError:  # it is gone, or does not take its replies; it may ask again
            return False
        return True

    @contextmanager
    def _journal(self) -> Iterator[JournalReader]:
        """Give the journal, opened again when it failed or when another file has taken its place.

        Raises:
            InputError: it cannot be read.
        """
        try:
            found = self._journal_file.stat()
            inode = (found.st_dev, found.st_ino)
        except OSError as error:
            self._close_reader()
            raise InputError(f"{self._journal_file}: cannot be read: {error.strerror}") from error
        if inode != self._reader_inode:
            self._close_reader()
        if self._reader is None:
            self._reader = JournalReader(self._journal_file)
            self._reader_inode = inode
            self._subscribers.begin(self._reader)
            self._positions.write(self._reader.hash_of, at_once=True)  # a place that was found again is kept
        try:
            yield self._reader
        except JournalFailed as error:
            self._close_reader()
            raise InputError(str(error)) from error

    def _last_row(self, reader: JournalReader) -> int:
        """Give the newest row that may be delivered."""
        last, published = reader.last_row(), self._published_row
        return last if published is None else min(last, published)

    def _close_reader(self) -> None:
        reader, self._reader, self._reader_inode = self._reader, None, None
        if reader is not None:
            reader.close()


def _page(reader: JournalReader, request: Replay | ReplaySince) -> tuple[Reply, list[bytes]]:
    """Read what one reply can carry, and where the next has to go on."""
    oldest = reader.after(0, 1)
    kept_from = _verdict(reader, oldest[0][1]).captured_at if oldest else None
    rows: Iterator[tuple[int, bytes]]
    if isinstance(request, Replay):
        rows = ((0, payload) for payload in reader.verdicts(request.boot, request.first, request.last))
    else:
        rows = reader.rows_since(datetime.fromisoformat(request.since), request.after)
    found, size = [], 0
    for row, payload in rows:
        found.append((row, payload))
        size += len(payload)
        if len(found) == _PAGE or size >= _PAGE_BYTES:
            break
    else:
        return Reply("page", request.id, len(found), kept_from=kept_from), [payload for _, payload in found]
    row, payload = found[-1]
    following = _verdict(reader, payload).seq + 1 if isinstance(request, Replay) else row
    reply = Reply("page", request.id, len(found), next=following, kept_from=kept_from)
    return reply, [payload for _, payload in found]


def _verdict(reader: JournalReader, payload: bytes) -> Verdict:
    try:
        return decode_verdict(payload)
    except MalformedMessage as error:
        raise JournalFailed(f"{reader.file}: is damaged: it holds an invalid verdict: {error}") from error
