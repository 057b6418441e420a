"""Writes verdicts into the registers of a PLC, one at a time, when the PLC may read it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from plant.gate.config import Peer, Unit, peer_of
from plant.modbus import reason, refusal
from plant.outputs import LineNow, PeerFailed
from plant.outputs.handshake import Handshake, WrittenPlc
from plant.outputs.registers import WORDS

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.pdu import ModbusPDU


class ModbusClientConfig(Handshake):
    """A PLC with a Modbus TCP server."""

    address: Peer
    unit: Unit = 1


class ModbusClient(WrittenPlc):
    """A client of the PLC."""

    def __init__(
        self, config: ModbusClientConfig, cameras: Sequence[str], now: Callable[[], LineNow]
    ) -> None:
        super().__init__(config.address, config, cameras, now)
        self._config = config
        self._client: ModbusTcpClient | None = None

    def _open(self) -> None:
        from pymodbus.client import ModbusTcpClient

        host, port = peer_of(self._address)
        self._client = ModbusTcpClient(host, port=port, timeout=self._timeout_s, retries=0, reconnect_delay=0)
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise PeerFailed(f"{self._address}: nobody answers there")

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()  # type: ignore[no-untyped-call]

    def _acknowledged(self) -> int:
        assert self._client is not None
        asked = self._client.read_holding_registers
        answer = self._asked(lambda: asked(self._config.acknowledge, count=1, device_id=self._config.unit))
        registers = answer.registers
        if len(registers) != 1:
            raise PeerFailed(f"{self._address}: answers {len(registers)} registers, expected 1")
        return registers[0]

    def _write(self, offset: int, words: list[int]) -> None:
        assert self._client is not None
        write = self._client.write_registers
        self._asked(lambda: write(self._config.register_ + offset, words, device_id=self._config.unit))

    def _asked(self, ask: Callable[[], "ModbusPDU"]) -> "ModbusPDU":
        from pymodbus.exceptions import ModbusException

        try:
            answer = ask()
        except (ModbusException, OSError) as error:
            raise PeerFailed(f"{self._address}: {reason(error)}") from error
        if answer.isError():
            raise PeerFailed(
                f"{self._address}: refuses registers {self._config.register_} to "
                f"{self._config.register_ + WORDS - 1} or {self._config.acknowledge}: {refusal(answer)}"
            )
        return answer
