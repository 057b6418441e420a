"""What the long-running commands do alike: they end at SIGTERM, tell systemd, and write how they fare."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sdnotify

from fleet.status import StatusFile


class Service:
    """Made in the main thread.

    Attributes:
        ending: set when it is to end.
    """

    def __init__(self, status: StatusFile) -> None:
        self.ending = threading.Event()
        self._status = status
        self._notifier = sdnotify.SystemdNotifier()
        # A manager that hangs must not hang this process: a message it has no room for is dropped.
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def tell(self, content: dict[str, Any], summary: str) -> None:
        """Tell how it fares; called about once a second."""
        self._status.write(content)
        self._notifier.notify(f"WATCHDOG=1\nSTATUS={summary}")

    def ready(self, text: str) -> None:
        """Tell that all that the config names is begun."""
        print(text, flush=True)
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """Tell that it ends."""
        self._notifier.notify("STOPPING=1")


@contextmanager
def service(status: StatusFile) -> Iterator[Service]:
    """End the block's work when SIGTERM or Ctrl-C comes."""
    made = Service(status)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: made.ending.set())
    yield made
    made.stopping()
