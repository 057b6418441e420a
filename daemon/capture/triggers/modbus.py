"""Edges of a discrete input of a PLC or an I/O module that speaks Modbus/TCP."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from daemon.capture.drivers import Trigger
from foundation.errors import InputError

_TIMEOUT_S: Final = 1.0
_RETRY_S: Final = 0.5


class ModbusInput:
    """One discrete input that is asked for its state again and again."""

    def __init__(self, trigger: Trigger, told: Callable[[str | None], object]) -> None:
        """Connect when edges are asked for.

        Args:
            trigger: from the config; names host, port, unit and input.
            told: called with what is wrong while no answer comes, and with None when all is well again.

        Raises:
            InputError: the library is not installed.
        """
        try:
            from pymodbus.client import ModbusTcpClient
        except ImportError as error:
            raise InputError(f"trigger.by: modbus needs pip install 'inspectd[modbus]' ({error})") from error
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what concerns people is told here
        self._trigger, self._told = trigger, told
        host, port = trigger.host_and_port()
        self._client: Any = ModbusTcpClient(host, port=port, timeout=_TIMEOUT_S, retries=0)

    def edges(self) -> Iterator[int]:
        """Give the times of the edges, as ``time.monotonic_ns()``, for ever."""
        wanted = self._trigger.edge == "rising"
        before: bool | None = None
        while True:
            asked_ns = time.monotonic_ns()
            state = self._state()
            answered_ns = time.monotonic_ns()
            if state is None:
                before = None  # whether it changed meanwhile is not known
                time.sleep(_RETRY_S)
                continue
            if before is not None and state != before and state == wanted:
                yield (asked_ns + answered_ns) // 2
            before = state
            time.sleep(max(0.0, self._trigger.poll_ms / 1e3 - (answered_ns - asked_ns) / 1e9))

    def _state(self) -> bool | None:
        from pymodbus.exceptions import ModbusException

        trigger = self._trigger
        name = f"trigger.address: {trigger.address}"
        try:
            if not self._client.connected and not self._client.connect():
                self._told(f"{name} does not answer: no trigger can be seen")
                return None
            answer = self._client.read_discrete_inputs(trigger.input, count=1, device_id=trigger.unit)
            if answer.isError():
                self._told(f"{name} has no discrete input {trigger.input}: {answer}")
                return None
        except (ModbusException, OSError) as error:
            self._client.close()
            self._told(f"{name} does not answer: {error}")
            return None
        self._told(None)
        return bool(answer.bits[0])
