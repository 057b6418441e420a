import asyncio
import os
import socket as sockets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import zmq

from daemon.host.access import Access
from daemon.host.bind import bind
from foundation.errors import InputError

_WAITING_MESSAGES: Final = 100_000
"""For each subscriber. Beyond it a slow one loses messages, and sees so by the gap in ``seq``."""

_LONGEST_SUBSCRIPTION: Final = 1024
"""Bytes; a connection that sends more at once is dropped by ZeroMQ."""

_MOST_SUBSCRIPTIONS: Final = 1000
"""Of one connection, those it took back included: beyond it the connection is broken off."""

_READ_AT_ONCE: Final = 32
_BETWEEN_ANSWERS_S: Final = 0.1


class Publisher:
    """The socket on which a line publishes. It never blocks: a slow subscriber must not slow the line.

    Belongs to one thread.

    Attributes:
        dropped_messages: what subscribers sent that is not a subscription, and connections that were broken
            off because they flooded.
    """

    def __init__(self, address: str, access: Access) -> None:
        """Bind the socket.

        Args:
            address: where to publish.
            access: who may subscribe; to be closed after this.

        Raises:
            InputError: the address is in use or cannot be bound.
        """
        self.dropped_messages = 0
        self._received: Counter[int] = Counter()  # subscriptions by the connection's file descriptor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_subscription: Callable[[], object] | None = None
        self._answer: asyncio.TimerHandle | None = None
        self._answered_s = 0.0
        self._socket = access.context.socket(zmq.XPUB)
        self._socket.sndhwm = _WAITING_MESSAGES
        self._socket.xpub_verbose = True  # tell of a subscription even if another subscriber has it, too
        # XPUB enters whatever has arrived into its table before it sends. With two messages per connection
        # in the queue a flood waits in its own TCP connection; with the usual 1000 it held a send up for
        # seconds (measured). With one, libzmq 4.3.5 never ends a CURVE handshake.
        self._socket.rcvhwm = 2
        self._socket.maxmsgsize = _LONGEST_SUBSCRIPTION
        self._socket.tcp_keepalive = 1  # a pulled cable ends the connection and its queue after a while
        self._socket.tcp_keepalive_idle = 30
        self._socket.tcp_keepalive_intvl = 10
        access.guard(self._socket)
        try:
            bind(self._socket, address, "publish")
        except InputError:
            self._socket.close()
            raise
        self._endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._descriptor = int(self._socket.getsockopt(zmq.FD))

    def watch(self, loop: asyncio.AbstractEventLoop, on_subscription: Callable[[], object]) -> None:
        """Read subscriptions in ``loop``, and call back soon after one, so that it is answered with health.

        The answer has to be a new health: an old one would name an old ``seq``, and the subscriber would take
        what was published since as lost. However many subscribe, there are at most ten calls per second.
        """
        self._loop = loop
        self._on_subscription = on_subscription
        loop.add_reader(self._descriptor, self._read_subscriptions)
        loop.call_soon(self._read_subscriptions)

    def unwatch(self) -> None:
        """Answer no more subscriptions: what the answer tells of is about to be closed."""
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop = None
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None

    def send(self, *messages: tuple[bytes, bytes]) -> None:
        """Hand messages, each a topic and a payload, to ZeroMQ, which sends them in its own thread."""
        for topic, payload in messages:
            self._socket.send(topic, zmq.SNDMORE)
            self._socket.send(payload)
        # ZeroMQ's descriptor tells of a change once only, and sending takes note of it.
        if self._loop is not None and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._read_subscriptions)

    def close(self) -> None:
        """Send what is left, for a second at the most."""
        if self._socket.closed:
            return
        self.unwatch()
        self._socket.close(linger=1000)

    def _read_subscriptions(self) -> None:
        if self._loop is None or self._socket.closed:
            return
        for _ in range(_READ_AT_ONCE):
            try:
                message = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._take(message)
        # The loop's other work comes first. A busy subscriber waits.
        self._loop.call_soon(self._read_subscriptions)

    def _take(self, message: zmq.Frame) -> None:
        kind = bytes(message.buffer[:1])
        try:
            connection = int(message.get("__fd"))
        except zmq.ZMQError:
            return  # ZeroMQ's own, on behalf of a connection that has ended
        self._received[connection] += 1
        if kind not in {b"\0", b"\1"}:
            self.dropped_messages += 1
        elif kind == b"\1":
            self._answer_soon()
        if self._received[connection] > _MOST_SUBSCRIPTIONS:
            del self._received[connection]
            self.dropped_messages += 1
            _break_off(connection, self._endpoint)

    def _answer_soon(self) -> None:
        if self._loop is not None and self._answer is None:
            due_s = max(self._loop.time(), self._answered_s + _BETWEEN_ANSWERS_S)
            self._answer = self._loop.call_at(due_s, self._answer_now)

    def _answer_now(self) -> None:
        self._answer = None
        if self._loop is not None and self._on_subscription is not None:
            self._answered_s = self._loop.time()
            self._on_subscription()


def _break_off(descriptor: int, endpoint: str) -> None:
    """Shut one connection of a bound socket down; ZeroMQ then ends it and forgets its subscriptions.

    The descriptor may have been closed and given to something else since its message came, so that only a
    connection to our own address is touched.
    """
    with suppress(OSError):
        duplicate = os.dup(descriptor)
        try:
            connection = sockets.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            return
        with connection:
            here = connection.getsockname()
            address = here if isinstance(here, str) else f":{here[1]}"
            if endpoint.endswith(address):
                connection.shutdown(sockets.SHUT_RDWR)
