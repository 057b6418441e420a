"""How a client's sockets connect to a line."""

from collections.abc import Callable
from typing import Final

import zmq

from verdicts.address import allow_ipv6, parse_address
from verdicts.curve import CurveKeys

# A pulled cable closes no connection: without heartbeats a client would wait on the dead one for ever.
_HEARTBEAT_MS: Final = 1000
_HEARTBEAT_TIMEOUT_MS: Final = 5000
# The kernel tries a host that is switched off more and more rarely, up to a minute apart.
_CONNECT_TIMEOUT_MS: Final = 2000


def connected(
    kind: int,
    address: str,
    curve: CurveKeys | None,
    *,
    receive_queue: int = 1000,
    subscription: str = "",
    watch: Callable[[zmq.SyncSocket], object] | None = None,
) -> zmq.SyncSocket:
    """Make a socket that connects in the background, and again whenever the connection breaks.

    Args:
        kind: such as ``zmq.SUB``.
        address: of the line.
        curve: keys; None without encryption.
        receive_queue: most messages that wait in it.
        subscription: what the topics begin with, of a ``zmq.SUB``.
        watch: is given the socket before it connects: whoever watches its events misses none.

    Raises:
        ValueError: the address or a key is invalid.
    """
    try:
        parse_address(address)
    except (ValueError, AttributeError) as error:
        wanted = error if isinstance(error, ValueError) else "expected a text"
        raise ValueError(f"address: found {address!r}, {wanted}, such as tcp://127.0.0.1:5560") from error
    # No ZMQ_MAXMSGSIZE: after one longer message libzmq drops the connection for good (seen with 4.3.5).
    # A message that is too long is refused when it is decoded.
    socket: zmq.SyncSocket = zmq.Context.instance().socket(kind)
    socket.linger = 0
    socket.rcvhwm = receive_queue
    socket.heartbeat_ivl = _HEARTBEAT_MS
    socket.heartbeat_timeout = _HEARTBEAT_TIMEOUT_MS
    socket.connect_timeout = _CONNECT_TIMEOUT_MS
    allow_ipv6(socket, address)
    if kind == zmq.SUB:
        socket.subscribe(subscription)
    if curve is not None:
        try:
            socket.curve_publickey = curve.public_key.encode()
            socket.curve_secretkey = curve.secret_key.encode()
            socket.curve_serverkey = curve.server_key.encode()
        except zmq.ZMQError as error:
            socket.close()
            raise ValueError(
                "curve: expected keys of 40 characters, as inspectctl keygen makes them"
            ) from error
    if watch is not None:
        watch(socket)
    try:
        socket.connect(address)
    except (zmq.ZMQError, TypeError) as error:
        socket.disable_monitor()
        socket.close()
        raise ValueError(
            f"address: found {address!r}, expected an address such as tcp://127.0.0.1:5560"
        ) from error
    return socket
