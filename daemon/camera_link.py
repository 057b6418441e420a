"""The two-way line between the daemon and one camera process: small JSON messages, one per packet.

A packet socket has no lock and no shared buffer that a killed process could leave broken, and its other end
reads an end-of-file whichever way the process died.
"""

import json
import select
import socket
from typing import Any

_MOST_BYTES = 65_536

# Daemon → camera process:
SETTINGS = "settings"  # settings, size, slots, free, next_frame: the first message
FREE = "free"  # slots: may be written again
STOP = "stop"

# Camera process → daemon:
OPENED = "opened"  # live
FRAME = "frame"  # frame, slot, captured_ns, part, region, error; without a slot there was no room or an error
ENDED = "ended"  # the source has no more frames
FAILED = "failed"  # error: the process ends


class LinkClosed(Exception):
    """The other end is gone."""


class CameraLink:
    """One end of the line."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        # Poll, since select cannot take descriptors from 1024 on.
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """Give the descriptor, for an event loop."""
        return self._socket.fileno()

    def send(self, kind: str, **content: Any) -> None:
        """Send one message.

        Raises:
            LinkClosed: the other end is gone.
        """
        try:
            self._socket.send(json.dumps({"kind": kind, **content}).encode())
        except OSError as error:
            raise LinkClosed from error

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Wait for one message; None when none came in ``timeout_s`` (None: wait for ever).

        Raises:
            LinkClosed: the other end is gone.
        """
        if not self._poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
            return None
        try:
            packet = self._socket.recv(_MOST_BYTES)
        except OSError as error:
            raise LinkClosed from error
        if not packet:
            raise LinkClosed
        message: dict[str, Any] = json.loads(packet)
        return message

    def close(self) -> None:
        """Close this end; the other one reads an end-of-file."""
        self._socket.close()


def linked_pair() -> tuple[CameraLink, socket.socket]:
    """Make the daemon's end, and the socket that the camera process inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return CameraLink(ours), theirs
