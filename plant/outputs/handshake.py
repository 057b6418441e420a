"""Hands verdicts to a PLC one at a time, in words that the PLC reads and acknowledges (docs/plc.md)."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Self

from pydantic import Field, model_validator

from plant.gate.config import Address
from plant.outputs import Delivery, LineNow, PeerWaits
from plant.outputs.registers import MAP, WORDS, status_words, verdict_words
from plant.section import Duration, OutputSection, seconds

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


class WrittenPlc(ABC):
    """A PLC whose words are written and read over the network; one request at a time."""

    most_at_once = 1

    def __init__(
        self, address: str, config: Handshake, cameras: Sequence[str], now: Callable[[], LineNow]
    ) -> None:
        self._address = address
        self._acknowledge = config.acknowledge
        self._timeout_s = seconds(config.timeout)
        self._cameras = cameras
        self._now = now
        self._lying: tuple[str, int] | None = None
        self._beat = 0
        self._beat_s = 0.0

    @abstractmethod
    def _open(self) -> None:
        """Connect.

        Raises:
            PeerFailed: nobody answers.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect, if connected."""

    @abstractmethod
    def _write(self, offset: int, words: list[int]) -> None:
        """Write words of the map from an offset on; raises ``PeerFailed``."""

    @abstractmethod
    def _acknowledged(self) -> int:
        """Read the acknowledgement; raises ``PeerFailed``."""

    def connect(self) -> bool:
        self.close()
        self._open()
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

    def tell(self, line: LineNow) -> None:
        """Write heartbeat, state and counters, twice a second."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= _BEAT_S:
            self._beat_s = now_s
            self._beat += 1
            self._write(0, status_words(line, self._beat))

    def _take_back(self) -> None:
        if self._lying is not None:
            self._write(MAP["valid"].offset, [0])
            self._lying = None

    def _wait_for(self, wanted: int) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        while (found := self._acknowledged()) != wanted:
            if time.monotonic() > give_up_s:
                raise PeerWaits(
                    f"{self._address}: the PLC does not acknowledge: register {self._acknowledge} is "
                    f"{found}, expected {wanted}"
                )
            self.tell(self._now())
            time.sleep(_POLL_S)
