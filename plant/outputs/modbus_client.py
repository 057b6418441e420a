"""Writes verdicts into the registers of a PLC, one at a time, when the PLC may read it."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Self

from pydantic import Field, model_validator

from plant.gate.config import Address, Peer, Unit, peer_of
from plant.modbus import reason, refusal
from plant.outputs import Delivery, LineNow, PeerFailed, PeerWaits
from plant.outputs.registers import MAP, WORDS, status_words, verdict_words
from plant.section import Duration, OutputSection, seconds

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient
    from pymodbus.pdu import ModbusPDU

_BEAT_S: Final = 0.5
_POLL_S: Final = 0.005


class Handshake(OutputSection):
    """Where a verdict lies, and how the other side says that it has read it."""

    register_: Address = Field(alias="register", default=0, description=f"the first of {WORDS} registers")
    acknowledge: Address = Field(
        default=100, description="register that the PLC sets to 1 when it has read, then 0"
    )
    timeout: Duration = Field(
        default="5 s", description="a PLC that does not acknowledge for so long is away"
    )

    @model_validator(mode="after")
    def _registers_do_not_overlap(self) -> Self:
        last = self.register_ + WORDS - 1
        if last > 65535:
            raise ValueError(f"register: found {self.register_}, expected at most {65536 - WORDS}")
        if self.register_ <= self.acknowledge <= last:
            raise ValueError(
                f"acknowledge: found {self.acknowledge}, expected one outside of {self.register_} to {last}, "
                "where the verdict lies"
            )
        return self


class ModbusClientConfig(Handshake):
    """A PLC with a Modbus TCP server."""

    address: Peer
    unit: Unit = 1


class ModbusClient:
    """A client of the PLC; one request at a time."""

    most_at_once = 1

    def __init__(
        self, config: ModbusClientConfig, cameras: Sequence[str], now: Callable[[], LineNow]
    ) -> None:
        self._config = config
        self._cameras = cameras
        self._now = now
        self._timeout_s = seconds(config.timeout)
        self._client: ModbusTcpClient | None = None
        self._lying: tuple[str, int] | None = None
        self._beat = 0
        self._beat_s = 0.0

    def connect(self) -> bool:
        from pymodbus.client import ModbusTcpClient

        self.close()
        host, port = peer_of(self._config.address)
        self._client = ModbusTcpClient(host, port=port, timeout=self._timeout_s, retries=0, reconnect_delay=0)
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise PeerFailed(f"{self._config.address}: nobody answers there")
        self._write(MAP["valid"].offset, [0])
        self._lying = None
        self._beat_s = 0.0
        return True

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Write one after another: the verdict, then valid; wait for acknowledge, then take valid back."""
        for delivery in deliveries:
            key = delivery.verdict.boot, delivery.verdict.seq
            if self._lying != key:  # else it lies there still, and the PLC may be reading it
                self._take_back()
                self._wait_for(0)
                self._write(MAP["decision"].offset, verdict_words(delivery, self._cameras))
                self._write(MAP["valid"].offset, [1])
                self._lying = key
            self._wait_for(1)
            self._take_back()

    def _take_back(self) -> None:
        if self._lying is not None:
            self._write(MAP["valid"].offset, [0])
            self._lying = None

    def tell(self, line: LineNow) -> None:
        """Write heartbeat, state and counters, twice a second."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= _BEAT_S:
            self._beat_s = now_s
            self._beat += 1
            self._write(0, status_words(line, self._beat))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()  # type: ignore[no-untyped-call]

    def _wait_for(self, wanted: int) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        while (found := self._acknowledged()) != wanted:
            if time.monotonic() > give_up_s:
                raise PeerWaits(
                    f"{self._config.address}: the PLC does not acknowledge: register "
                    f"{self._config.acknowledge} is {found}, expected {wanted}"
                )
            self.tell(self._now())
            time.sleep(_POLL_S)

    def _acknowledged(self) -> int:
        assert self._client is not None
        asked = self._client.read_holding_registers
        answer = self._asked(lambda: asked(self._config.acknowledge, count=1, device_id=self._config.unit))
        registers = answer.registers
        if len(registers) != 1:
            raise PeerFailed(f"{self._config.address}: answers {len(registers)} registers, expected 1")
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
            raise PeerFailed(f"{self._config.address}: {reason(error)}") from error
        if answer.isError():
            raise PeerFailed(
                f"{self._config.address}: refuses registers {self._config.register_} to "
                f"{self._config.register_ + WORDS - 1} or {self._config.acknowledge}: {refusal(answer)}"
            )
        return answer
