"""Hears a process that has ended to its last message."""

import zmq
from patience import PATIENCE_S
from zmq.utils.monitor import recv_monitor_message

_NEVER_CONNECTED_MS = 300


class Connections:
    """Counts a socket's connections. When the last one is gone, all that came over it can be received."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        """Count from now on, before it connects."""
        self._events = socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        self._open = 0
        self._ever = False

    def wait_until_gone(self) -> None:
        """Wait until no process is at the other end; one that has ended may never have been."""
        while self._events.poll(self._patience_ms()):
            self._ever = True
            connected = recv_monitor_message(self._events)["event"] == zmq.EVENT_CONNECTED
            self._open += 1 if connected else -1
        assert self._open == 0, f"{self._open} connections are still there"

    def _patience_ms(self) -> float:
        if self._open:
            return PATIENCE_S * 1000
        return 0 if self._ever else _NEVER_CONNECTED_MS
