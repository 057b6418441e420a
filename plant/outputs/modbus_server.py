"""Registers that a PLC polls, with the same handshake: a verdict stays until the PLC has acknowledged it."""

import asyncio
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field

from plant.gate.config import Unit
from plant.outputs import Delivery, LineNow, PeerFailed, PeerWaits
from plant.outputs.handshake import Handshake
from plant.outputs.registers import MAP, WORDS, status_words, verdict_words
from plant.section import seconds, whole_port

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer

_LISTEN: Final = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]+)", re.ASCII)
_BEATS_PER_S: Final = 2
_START_S: Final = 5.0
_READS_OF_NOTHING: Final = 2
"""So often a PLC has to have read valid 0 before the first verdict: it may have acknowledge 1 from before."""


def _listen(text: str) -> str:
    match = _LISTEN.fullmatch(text)
    try:
        ipaddress.ip_address(match[1].strip("[]") if match else "")
    except ValueError:
        raise ValueError("expected an address of this machine such as tcp://127.0.0.1:502") from None
    assert match is not None
    whole_port(match[2])
    return text


class ModbusServerConfig(Handshake):
    """Where PLCs poll. Modbus has no passwords: whoever reaches the port may read and acknowledge."""

    listen: Annotated[str, AfterValidator(_listen)] = "tcp://127.0.0.1:502"
    unit: Unit = Field(default=1, description="number of the device")


class ModbusServer:
    """A Modbus TCP server in a thread; only the acknowledgement can be written."""

    most_at_once = 1

    def __init__(
        self, config: ModbusServerConfig, cameras: Sequence[str], now: Callable[[], LineNow]
    ) -> None:
        self._config = config
        self._cameras = cameras
        self._now = now
        self._timeout_s = seconds(config.timeout)
        self._words = [0] * (WORDS - MAP["valid"].offset)
        self._lying: tuple[str, int] | None = None
        self._acknowledged = 0
        self._reads_of_nothing = 0
        self._changed = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: ModbusTcpServer | None = None
        self._trouble: str | None = None

    def connect(self) -> bool:
        """Begin to listen."""
        if self._server is not None:
            return True
        begun = threading.Event()
        self._trouble = None
        threading.Thread(target=self._run, args=(begun,), name="modbus server", daemon=True).start()
        if not begun.wait(_START_S) or self._trouble is not None:
            raise PeerFailed(f"{self._config.listen}: {self._trouble or 'does not begin'}")
        return True

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Put one after another into the registers, and wait until it was read and acknowledged."""
        for delivery in deliveries:
            key = delivery.verdict.boot, delivery.verdict.seq
            if self._lying != key:  # else it lies there still, and a PLC may have read it
                self._words = [0, *self._words[1:]]
                self._wait_for(0, reads=_READS_OF_NOTHING)
                self._words = [1, *verdict_words(delivery, self._cameras)]
                self._lying = key
            self._wait_for(1)
            self._words = [0, *self._words[1:]]
            self._lying = None

    def tell(self, line: LineNow) -> None:
        """Nothing: what is read is made when it is read."""
        if self._trouble is not None:
            raise PeerFailed(f"{self._config.listen}: {self._trouble}")

    def close(self) -> None:
        loop, server = self._loop, self._server
        self._loop = self._server = None
        if loop is not None and server is not None:
            asyncio.run_coroutine_threadsafe(server.shutdown(), loop)  # type: ignore[no-untyped-call]

    def _wait_for(self, wanted: int, reads: int = 0) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        while True:
            self._changed.clear()
            if self._acknowledged == wanted and self._reads_of_nothing >= reads:
                return
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise PeerWaits(
                    f"{self._config.listen}: no PLC acknowledges: register {self._config.acknowledge} is "
                    f"{self._acknowledged}, expected {wanted}"
                    if self._acknowledged != wanted
                    else f"{self._config.listen}: no PLC reads the registers"
                )
            self._changed.wait(left_s)

    def _run(self, begun: threading.Event) -> None:
        try:
            asyncio.run(self._serve(begun))
        except Exception as error:
            self._trouble = " ".join(str(error).split()) or type(error).__name__
        finally:
            begun.set()

    async def _serve(self, begun: threading.Event) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        config = self._config
        match = _LISTEN.fullmatch(config.listen)
        assert match is not None
        device = SimDevice(
            config.unit,
            [
                SimData(config.register_, values=[0] * WORDS, datatype=DataType.REGISTERS, readonly=True),
                SimData(config.acknowledge, values=[0], datatype=DataType.REGISTERS),
            ],
            action=self._asked,
        )
        server = ModbusTcpServer(device, address=(match[1].strip("[]"), int(match[2])))
        if not await server.listen():
            raise OSError("cannot be bound; does another program listen there, or is it not of this machine?")
        self._loop, self._server = asyncio.get_running_loop(), server
        begun.set()
        await server.serving

    async def _asked(
        self,
        _function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: "list[int] | list[bool] | None",
    ) -> Any:
        from pymodbus.constants import ExcCodes

        if values:
            if address != self._config.acknowledge or list(values) not in ([0], [1]):
                return ExcCodes.ILLEGAL_VALUE
            self._acknowledged = int(values[0])
            self._changed.set()
            return None
        valid = self._config.register_ + MAP["valid"].offset
        if self._reads_of_nothing < _READS_OF_NOTHING and address <= valid < address + count:
            self._reads_of_nothing += not self._words[0]
            self._changed.set()
        begin = self._config.register_ - start
        beat = int(time.monotonic() * _BEATS_PER_S)
        registers[begin : begin + WORDS] = status_words(self._now(), beat) + self._words
        return None
