"""Hears the daemon while the camera's thread waits for a picture: a trigger is taken when it comes."""

import queue
import threading

from daemon.capture.link import CameraLink, Fire, LinkClosed, MalformedPacket, Message
from daemon.capture.triggers.triggers import Triggers


class Inbox:
    """Receives in place of a link, whose triggers it hands on at once."""

    def __init__(self, link: CameraLink, triggers: Triggers) -> None:
        """Begin to hear.

        Args:
            link: to the daemon; nobody else receives from it any more.
            triggers: where triggers go.
        """
        self._link, self._triggers = link, triggers
        self._messages: queue.SimpleQueue[Message | LinkClosed | MalformedPacket] = queue.SimpleQueue()
        self._next: Message | LinkClosed | MalformedPacket | None = None
        threading.Thread(target=self._hear, daemon=True).start()

    def receive(self) -> Message | None:
        """Take the next message; None when none is there.

        Raises:
            LinkClosed: the daemon is gone.
            MalformedPacket: what came is not a message.
        """
        self.wait(0)
        message, self._next = self._next, None
        if isinstance(message, LinkClosed | MalformedPacket):
            raise message
        return message

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait until there is something to receive; False when nothing came in time (None: for ever)."""
        if self._next is None:
            try:
                self._next = self._messages.get(
                    timeout_ms != 0, None if timeout_ms is None else timeout_ms / 1e3
                )
            except queue.Empty:
                return False
        return True

    def _hear(self) -> None:
        try:
            while True:
                self._link.wait(None)
                message = self._link.receive()
                if isinstance(message, Fire):
                    self._triggers.fire(message.at_ns, message.part, message.number)
                elif message is not None:
                    self._messages.put(message)
        except (LinkClosed, MalformedPacket) as closed:
            self._messages.put(closed)
