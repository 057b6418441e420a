"""What the long-running commands do alike: they end at SIGTERM, tell systemd, and write how they fare."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleet.status import StatusFile
from foundation import sd_notify


class Service:
    """Made in the main thread.

    Attributes:
        ending: set when it is to end.
    """

    def __init__(self, status: StatusFile) -> None:
        self.ending = threading.Event()
        self._status = status
        self._systemd = sd_notify.Service()

    def tell(self, content: dict[str, Any], summary: str) -> None:
        """Tell how it fares; called about once a second."""
        self._status.write(content)
        self._systemd.alive(summary)

    def ready(self, text: str) -> None:
        """Tell that all that the config names is begun."""
        print(text, flush=True)
        self._systemd.ready()

    def stopping(self) -> None:
        """Tell that it ends."""
        self._systemd.stopping()


@contextmanager
def service(status: StatusFile) -> Iterator[Service]:
    """End the block's work when SIGTERM or Ctrl-C comes."""
    made = Service(status)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: made.ending.set())
    yield made
    made.stopping()
