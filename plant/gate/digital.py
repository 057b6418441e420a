"""What moves a gate: one digital output. Whatever ends this process, it falls back to its rest."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from foundation.errors import InputError, refused_by_system
from lines.gpio import request_lines
from plant.gate.config import GateOutput, GpioOutput, ModbusOutput, peer_of
from plant.modbus import reason, refusal

if TYPE_CHECKING:
    import gpiod
    from pymodbus.client import ModbusTcpClient

_REFRESH_S: Final = 0.5
_RETRY_S: Final = 0.5


class DigitalOutput(Protocol):
    """One output, at rest in the beginning."""

    trouble: str | None
    """One line about why it does not move; None while it does."""

    def set(self, active: bool) -> None:
        """Make it active or let it rest; at once."""
        ...

    def close(self) -> None:
        """Let it rest, and let go of it."""
        ...


def open_output(config: GateOutput, key: str) -> DigitalOutput:
    """Open an output that the config names.

    Raises:
        InputError: there is none such, or something else has it.
    """
    if config.gpio is not None:
        return GpioLine(config.gpio, key)
    if config.modbus is not None:
        return ModbusCoil(config.modbus)
    assert config.simulated is not None
    return SimulatedOutput(config.simulated, key)


class GpioLine:
    """A line of a GPIO chip. The kernel releases it when the process ends, however that ends."""

    def __init__(self, config: GpioOutput, key: str) -> None:
        from gpiod.line import Value

        self.trouble: str | None = None
        self._config = config
        self._key = key
        self._values = (Value.INACTIVE, Value.ACTIVE)
        self._request: gpiod.LineRequest | None = self._requested()

    def set(self, active: bool) -> None:
        try:
            if self._request is None:  # a chip that was unplugged does not come back under the old request
                self._request = self._requested()
            self._request.set_value(self._config.line, self._values[active])
            self.trouble = None
        except (OSError, InputError) as error:
            reason = " ".join(str(error).split())
            self.trouble = f"{self._config.chip}, line {self._config.line}: {reason}"
            self._release()

    def close(self) -> None:
        self.set(False)
        self._release()

    def _requested(self) -> "gpiod.LineRequest":
        import gpiod
        from gpiod.line import Direction

        config = self._config
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, output_value=self._values[False], active_low=config.active_low
        )
        return request_lines(
            str(config.chip), f"{self._key}.gpio", {(config.line,): settings}, consumer="inspectd-plant"
        )

    def _release(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.release()


class SimulatedOutput:
    """A file with a line for each change: the monotonic time in nanoseconds, and 1 or 0."""

    trouble: str | None = None

    def __init__(self, file: Path, key: str) -> None:
        try:
            self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise refused_by_system(f"{key}.simulated: {file}: {error.strerror}", error) from error
        self.set(False)

    def set(self, active: bool) -> None:
        try:
            os.write(self._descriptor, b"%d %d\n" % (time.monotonic_ns(), active))
            self.trouble = None
        except OSError as error:
            self.trouble = f"{error.strerror}"

    def close(self) -> None:
        self.set(False)
        os.close(self._descriptor)


class ModbusCoil:
    """A coil of a PLC. A thread writes what is wanted now; what was wanted meanwhile is past.

    It is written again now and then, so that the PLC's own watchdog can let it rest when this process ends.
    """

    def __init__(self, config: ModbusOutput) -> None:
        self.trouble: str | None = "not connected yet"
        self._config = config
        self._wanted = False
        self._changed = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coil", daemon=True)
        self._thread.start()

    def set(self, active: bool) -> None:
        self._wanted = active
        self._changed.set()

    def close(self) -> None:
        self.set(False)
        self._end.set()
        self._thread.join(3)

    def _run(self) -> None:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException

        host, port = peer_of(self._config.address)
        while True:
            client = ModbusTcpClient(host, port=port, timeout=1, retries=0, reconnect_delay=0)
            try:
                if client.connect():  # type: ignore[no-untyped-call]
                    self._write(client)
                else:
                    self.trouble = f"{self._config.address}: cannot be reached"
            except (ModbusException, OSError) as error:
                self.trouble = f"{self._config.address}: {reason(error)}"
            finally:
                client.close()  # type: ignore[no-untyped-call]
            if self._end.wait(_RETRY_S):
                return

    def _write(self, client: "ModbusTcpClient") -> None:
        while True:
            self._changed.clear()
            ending = self._end.is_set()
            answer = client.write_coil(self._config.coil, self._wanted, device_id=self._config.unit)
            if answer.isError():
                why = refusal(answer)
                self.trouble = f"{self._config.address}: coil {self._config.coil} cannot be written: {why}"
                return
            self.trouble = None
            if ending:
                return
            self._changed.wait(_REFRESH_S)
