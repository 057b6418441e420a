import zmq

from engine_runtime.errors import InputError

_WAITING_MESSAGES = 100_000
"""For each subscriber. Beyond it a slow one loses messages, and sees so by the gap in ``seq``."""


class Publisher:
    """The PUB socket of a line. It never blocks: a slow subscriber must not slow the line."""

    def __init__(self, address: str) -> None:
        """Bind the socket.

        Raises:
            InputError: the address is in use or cannot be bound.
        """
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.sndhwm = _WAITING_MESSAGES
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            in_use = error.errno == zmq.EADDRINUSE
            reason = "in use; does another inspectd run?" if in_use else f"cannot be bound: {error.strerror}"
            raise InputError(f"publish: {address} is {reason}") from error

    def send(self, topic: bytes, payload: bytes) -> None:
        """Hand a message to ZeroMQ, which sends it in its own thread."""
        self._socket.send_multipart((topic, payload))

    def close(self) -> None:
        """Send what is left, for a second at the most."""
        self._socket.close(linger=1000)
        self._context.term()
