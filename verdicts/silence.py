import time

from verdicts.health import Health


class LineSilent(TimeoutError):
    """No health came for ``silent_s`` seconds; whether parts are judged is unknown: stop the line.

    Attributes:
        silent_s: seconds since the last health, or since the subscription when there never was one.
        health: the last health; its ``state`` is "stopping" when the daemon was shut down in order.
    """

    def __init__(self, text: str, silent_s: float, health: Health | None) -> None:
        super().__init__(text)
        self.silent_s = silent_s
        self.health = health


class Silence:
    """Measures how long a line has been silent, from now on.

    Attributes:
        health: the last that was heard; None before the first.
    """

    def __init__(self, line: str, address: str, silence_s: float) -> None:
        self.health: Health | None = None
        self._line = line
        self._address = address
        self._silence_s = silence_s
        self._heard_s = self._from_s = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds until the line is to be called silent."""
        return self._from_s + self._silence_s - time.monotonic()

    @property
    def goes_on(self) -> bool:
        """Whether the line was called silent since it was heard last.

        Then make a new connection: libzmq gives one up for good when the other side breaks the protocol, and
        a gate runs for months. The first time the daemon may just have stalled.
        """
        return self._from_s > self._heard_s

    def heard(self, health: Health) -> None:
        """Note a sign of life."""
        self.health = health
        self._heard_s = self._from_s = time.monotonic()

    def error(self, detail: str = "") -> LineSilent:
        """Call the line silent, and start to measure again."""
        self._from_s = time.monotonic()
        silent_s = self._from_s - self._heard_s
        text = f"{self._line} is silent: no health from {self._address} for {silent_s:.1f} s"
        if self.health is not None and self.health.state == "stopping":
            text += ", it was shut down"
        return LineSilent(text + detail, silent_s, self.health)
