"""What systemd is told, over its notify socket; nothing where there is none."""

import sdnotify


class Service:
    """The protocol of ``sd_notify(3)``."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        # A manager that hangs must not hang this process: a message it has no room for is dropped.
        if self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)

    def ready(self) -> None:
        """All that the config names is begun; outputs connect when they can."""
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        """The process ends."""
        self._notifier.notify("STOPPING=1")

    def alive(self, status: str) -> None:
        """The main thread goes on; ``status`` is shown by ``systemctl status``."""
        self._notifier.notify(f"WATCHDOG=1\nSTATUS={status}")
