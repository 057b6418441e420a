"""Where an encoder's count comes from: the kernel's counter, GPIO lines, a PLC's register, a simulation."""

import os
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from foundation.errors import InputError, refused_by_system
from lines.gpio import request_lines
from plant.gate.config import BeltConfig, GpioEncoder, ModbusEncoder, SimulatedBelt, peer_of
from plant.modbus import reason, refusal

if TYPE_CHECKING:
    from pathlib import Path

    import gpiod

_STALE_S: Final = 0.25
_POLL_S: Final = 0.004
_RETRY_S: Final = 0.5


class BeltFailed(Exception):
    """Where the belt is cannot be read now; the text is one line."""


class Counter(Protocol):
    """Counts pulses of the belt's encoder, upwards when the belt runs forwards."""

    outlives: bool
    """Whether it counts on while this process does not run."""

    def read(self) -> float:
        """Give the count of this moment.

        Raises:
            BeltFailed: it cannot be read, or has lost count; then it may count from anywhere.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_counter(config: BeltConfig) -> Counter:
    """Open the encoder that the config names.

    Raises:
        InputError: there is no such device, or something else has it.
    """
    if config.counter is not None:
        return CounterFile(config.counter)
    if config.gpio is not None:
        return GpioCounter(config.gpio)
    if config.modbus is not None:
        return ModbusCounter(config.modbus)
    assert config.simulated is not None
    return SimulatedCounter(config.simulated)


class CounterFile:
    """A file with the count, as the kernel's counter subsystem has it."""

    outlives = True

    def __init__(self, file: "Path") -> None:
        self._file = file
        try:
            self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise refused_by_system(
                f"belt.counter: {file} cannot be read: {error.strerror}", error
            ) from error
        try:
            self.read()
        except BeltFailed as error:
            raise InputError(f"belt.counter: {error}; expected a file with a count") from error

    def read(self) -> float:
        try:
            text = os.pread(self._descriptor, 64, 0)
        except OSError as error:
            raise BeltFailed(f"{self._file} cannot be read: {error.strerror}") from error
        if not text.strip().lstrip(b"-").isdigit():
            raise BeltFailed(f"{self._file} holds {text[:40]!r}")
        return float(int(text))

    def close(self) -> None:
        os.close(self._descriptor)


class SimulatedCounter:
    """A belt that needs no hardware; where it is depends on the machine's monotonic clock alone."""

    outlives = True

    def __init__(self, config: SimulatedBelt) -> None:
        self._profile = config.profile
        self._lap_s = sum(seconds for seconds, _ in config.profile)
        self._lap = sum(seconds * speed for seconds, speed in config.profile)

    def read(self) -> float:
        return float(int(self.at(time.monotonic())))

    def at(self, moment_s: float) -> float:
        """Give the belt's true position at a moment."""
        laps, left_s = divmod(moment_s, self._lap_s)
        position = laps * self._lap
        for seconds, speed in self._profile:
            if left_s <= seconds:
                break
            position += seconds * speed
            left_s -= seconds
        return position + min(left_s, seconds) * speed

    def close(self) -> None:
        pass


class GpioCounter:
    """Counts edges of GPIO lines in a thread: of two tracks each edge, with its direction."""

    outlives = False

    def __init__(self, config: GpioEncoder) -> None:
        self._lines = [config.a] if config.b is None else [config.a, config.b]
        self._chip = str(config.chip)
        self._count = 0
        self._lost: str | None = None
        self._gone: str | None = None
        self._levels = 0
        self._request = self._requested()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def read(self) -> float:
        if self._gone is not None:
            raise BeltFailed(self._gone)
        lost, self._lost = self._lost, None
        if lost is not None:
            raise BeltFailed(lost)
        return float(self._count)

    def close(self) -> None:
        self._end.set()
        self._thread.join(2)
        self._request.release()

    def _requested(self) -> "gpiod.LineRequest":
        import gpiod
        from gpiod.line import Bias, Edge, Value

        two = len(self._lines) == 2
        settings = gpiod.LineSettings(edge_detection=Edge.BOTH if two else Edge.RISING, bias=Bias.AS_IS)
        request = request_lines(
            self._chip, "belt.gpio", {tuple(self._lines): settings}, consumer="inspectd-plant"
        )
        if two:
            values = request.get_values(self._lines)
            self._levels = sum(1 << place for place, value in enumerate(values) if value == Value.ACTIVE)
        return request

    def _run(self) -> None:
        due = 0
        while not self._end.is_set():
            try:
                if self._gone is not None:
                    self._request.release()
                    self._request, due = self._requested(), 0
                    self._lost, self._gone = f"{self._chip} was away", None
                if not self._request.wait_edge_events(0.5):
                    continue
                events = self._request.read_edge_events()
            except (OSError, InputError) as error:
                # A chip that was unplugged does not come back under the old request.
                self._gone = f"{self._chip} cannot be read: {' '.join(str(error).split())}"
                self._end.wait(_RETRY_S)
                continue
            for event in events:
                if due and event.global_seqno != due:
                    self._lost = f"{self._chip} lost {event.global_seqno - due} edges of the encoder"
                due = event.global_seqno + 1
                self._step(event)

    def _step(self, event: "gpiod.EdgeEvent") -> None:
        if len(self._lines) == 1:
            self._count += 1
            return
        place = self._lines.index(event.line_offset)
        rising = event.event_type == event.Type.RISING_EDGE
        before, self._levels = self._levels, self._levels & ~(1 << place) | rising << place
        moved = (_QUADRANT[self._levels] - _QUADRANT[before]) % 4
        if moved == 2:
            self._lost = f"{self._chip}: the encoder's tracks changed both at once"
        else:
            self._count += 1 if moved == 1 else -1 if moved == 3 else 0


_QUADRANT: Final = {0b00: 0, 0b01: 1, 0b11: 2, 0b10: 3}
"""Levels of B and A, in the order in which they come when A leads."""


class ModbusCounter:
    """Polls a register in a thread, and reckons on from there by the speed."""

    outlives = True

    def __init__(self, config: ModbusEncoder) -> None:
        self._config = config
        self._address = config.address
        self._seen: tuple[float, float, float] | None = None  # time, count, pulses per second
        self._trouble = "has not answered yet"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def read(self) -> float:
        seen, now_s = self._seen, time.monotonic()
        if seen is None or now_s - seen[0] > _STALE_S:
            raise BeltFailed(f"{self._address}: {self._trouble}")
        return seen[1] + seen[2] * (now_s - seen[0])

    def close(self) -> None:
        self._end.set()
        self._thread.join(2)

    def _run(self) -> None:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException

        host, port = peer_of(self._address)
        while not self._end.is_set():
            client = ModbusTcpClient(host, port=port, timeout=1, retries=0, reconnect_delay=0)
            try:
                if client.connect():  # type: ignore[no-untyped-call]
                    self._poll(client)
                else:
                    self._trouble = "cannot be reached"
            except (ModbusException, OSError) as error:
                self._trouble = reason(error)
            finally:
                client.close()  # type: ignore[no-untyped-call]
            self._end.wait(_RETRY_S)

    def _poll(self, client: object) -> None:
        config = self._config
        ask = getattr(
            client, f"read_{config.kind}_registers" if config.kind == "holding" else "read_input_registers"
        )
        self._seen = None
        while not self._end.wait(_POLL_S):
            asked_s = time.monotonic()
            answer = ask(config.register_, count=config.words, device_id=config.unit)
            if answer.isError() or len(answer.registers) != config.words:
                why = refusal(answer) if answer.isError() else f"found {len(answer.registers)} registers"
                self._trouble = f"register {config.register_} cannot be read: {why}"
                self._seen = None
                return
            count = 0.0
            for word in answer.registers:
                count = count * 65536 + word
            at_s = (asked_s + time.monotonic()) / 2
            before: tuple[float, float, float] | None = self._seen
            speed = 0.0 if before is None else (count - before[1]) / (at_s - before[0])
            # A count that began anew is no speed.
            self._seen = (at_s, count, speed if abs(speed) * _STALE_S < 32768 else 0.0)
