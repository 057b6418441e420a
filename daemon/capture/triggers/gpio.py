"""Edges of a GPIO line, through libgpiod: Raspberry Pi, industrial PCs, USB adapters."""

from collections.abc import Iterator
from datetime import timedelta

from daemon.capture.drivers import CameraFailed, Trigger
from foundation.errors import InputError
from lines.gpio import request_lines


class GpioInput:
    """One line of a GPIO chip; the kernel stamps its edges with the monotonic time."""

    def __init__(self, trigger: Trigger) -> None:
        """Ask for the line.

        Args:
            trigger: from the config; names chip, line, edge and debouncing.

        Raises:
            InputError: the library is not installed, or there is no such chip or line.
        """
        try:
            from gpiod import LineSettings
            from gpiod.line import Clock, Direction, Edge
        except ImportError as error:
            raise InputError(f"trigger.by: gpio needs pip install 'inspectd[gpio]' ({error})") from error
        self._name = f"{trigger.chip}, line {trigger.line}"
        settings = LineSettings(
            direction=Direction.INPUT,
            edge_detection=Edge.RISING if trigger.edge == "rising" else Edge.FALLING,
            debounce_period=timedelta(milliseconds=trigger.debounce_ms),
            event_clock=Clock.MONOTONIC,
        )
        line: int | str = trigger.line if isinstance(trigger.line, int) else str(trigger.line)
        self._request = request_lines(trigger.chip, "trigger", {line: settings}, consumer="inspectd")

    def edges(self) -> Iterator[int]:
        """Give the times of the edges, as ``time.monotonic_ns()``, for ever.

        Raises:
            CameraFailed: the chip went away.
        """
        try:
            while True:
                for event in self._request.read_edge_events():
                    yield int(event.timestamp_ns)
        except OSError as error:
            raise CameraFailed(f"trigger: {self._name}: {error.strerror or error}") from error
