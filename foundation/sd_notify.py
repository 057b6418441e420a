"""What a process tells systemd, over the notify socket; nothing where there is none."""

import time

import sdnotify


class Service:
    """The protocol of ``sd_notify(3)``."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        # A manager that hangs must not hang this process: a message it has no room for is dropped.
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def ready(self) -> None:
        """All that was asked for is begun, or runs again after a reload."""
        self._notifier.notify("READY=1")

    def reloading(self) -> None:
        """A new config is being read."""
        # The time lets systemd tell this reload's READY from one that was on its way before.
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The process ends."""
        self._notifier.notify("STOPPING=1")

    def alive(self, status: str) -> None:
        """All makes progress; ``status`` is shown by ``systemctl status``."""
        self._notifier.notify(f"WATCHDOG=1\nSTATUS={status}")
