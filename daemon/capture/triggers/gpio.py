"""Edges of a GPIO line, through libgpiod: Raspberry Pi, industrial PCs, USB adapters."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from daemon.capture.drivers import CameraFailed, Trigger
from foundation.errors import InputError, Unavailable


class GpioInput:
    """One line of a GPIO chip; the kernel stamps its edges with the monotonic time."""

    def __init__(self, trigger: Trigger, gpiod: Any = None) -> None:
        """Ask for the line.

        Args:
            trigger: from the config; names chip, line, edge and debouncing.
            gpiod: the library; imported when None.

        Raises:
            InputError: the library is not installed, or there is no such chip or line.
        """
        if gpiod is None:
            try:
                import gpiod
            except ImportError as error:
                raise InputError(f"trigger.by: gpio needs pip install 'inspectd[gpio]' ({error})") from error
        self._name = f"{trigger.chip}, line {trigger.line}"
        edge = gpiod.line.Edge.RISING if trigger.edge == "rising" else gpiod.line.Edge.FALLING
        settings = gpiod.LineSettings(
            direction=gpiod.line.Direction.INPUT,
            edge_detection=edge,
            debounce_period=timedelta(milliseconds=trigger.debounce_ms),
            event_clock=gpiod.line.Clock.MONOTONIC,
        )
        line: int | str = trigger.line if isinstance(trigger.line, int) else str(trigger.line)
        try:
            self._request = gpiod.request_lines(trigger.chip, consumer="inspectd", config={line: settings})
        except FileNotFoundError as error:
            raise InputError(f"trigger.chip: {trigger.chip}: there is no such GPIO chip") from error
        except (ValueError, TypeError) as error:
            raise InputError(f"trigger.line: {self._name}: {error}") from error
        except OSError as error:
            refused = Unavailable if isinstance(error, PermissionError) or error.errno == 16 else InputError
            raise refused(f"trigger: {self._name}: {error.strerror or error}") from error

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
