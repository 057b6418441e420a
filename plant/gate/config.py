"""The sections of the belt and of the gates."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lines.section import File, Name, Section
from plant.section import Duration, Quantity, quantity, whole_port

_PEER: Final = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]+))?", re.ASCII)
MODBUS_PORT: Final = 502


def _peer(text: str) -> str:
    match = _PEER.fullmatch(text)
    if match is None:
        raise ValueError("expected the address of a PLC such as tcp://192.168.0.10:502")
    whole_port(match[2] or "502")
    return text


def peer_of(text: str) -> tuple[str, int]:
    """Give host and port of a checked address."""
    match = _PEER.fullmatch(text)
    assert match is not None
    return match[1].strip("[]"), int(match[2] or MODBUS_PORT)


Peer = Annotated[str, AfterValidator(_peer)]
Address = Annotated[int, Field(ge=0, le=65535)]
Unit = Annotated[int, Field(ge=0, le=255)]
_Line = Annotated[int, Field(ge=0, le=1023)]


def _speed(text: str) -> str:
    if quantity(text, "m/s").value <= 0:
        raise ValueError("expected a speed above 0, such as 0.4 m/s")
    return text


def _length(text: str) -> str:
    quantity(text, "s|m")
    return text


class GpioEncoder(Section):
    """An incremental encoder on lines of a GPIO chip, counted by this process."""

    chip: File = Field(description="such as /dev/gpiochip0")
    a: _Line = Field(description="line of track A")
    b: _Line | None = Field(default=None, description="line of track B; without it the belt never reverses")

    @model_validator(mode="after")
    def _has_two_tracks(self) -> Self:
        if self.a == self.b:
            raise ValueError(f"b: found {self.b}, which is also track a; expected another line")
        return self


class ModbusEncoder(Section):
    """A counter in a register of a PLC."""

    address: Peer
    unit: Unit = 1
    register_: Address = Field(alias="register")
    kind: Literal["holding", "input"] = "holding"
    words: Literal[1, 2] = Field(default=2, description="registers, high word first")

    @model_validator(mode="after")
    def _ends_in_the_map(self) -> Self:
        if self.register_ + self.words > 65536:
            raise ValueError(f"register: found {self.register_}, expected at most {65536 - self.words}")
        return self


class SimulatedBelt(Section):
    """A belt that repeats a profile of speeds, from the machine's start on."""

    profile: Annotated[
        tuple[Annotated[tuple[float, float], Field(description="seconds, pulses per second")], ...],
        Field(min_length=1, max_length=10_000),
    ]

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if any(seconds <= 0 for seconds, _ in self.profile):
            raise ValueError("expected [seconds, pulses per second] with seconds above 0")
        return self


class BeltConfig(Section):
    """Where the belt is: by the clock and its speed, or by an encoder."""

    speed: Annotated[str, AfterValidator(_speed)] | None = Field(
        default=None, description="constant, such as 0.4 m/s; no encoder is needed then"
    )
    counter: File | None = Field(
        default=None, description="file of the kernel's counter, such as /sys/bus/counter/devices/…/count"
    )
    gpio: GpioEncoder | None = None
    modbus: ModbusEncoder | None = None
    simulated: SimulatedBelt | None = None
    bits: Annotated[int, Field(ge=8, le=63)] | None = Field(
        default=None, description="after so many bits the counter begins at 0 again"
    )
    fastest: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="pulses per second; what is faster is a jump"
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kinds = ("speed", "counter", "gpio", "modbus", "simulated")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"expected exactly one of {', '.join(kinds)}")
        if self.speed is not None and (self.bits is not None or self.fastest is not None):
            raise ValueError("bits and fastest are of an encoder; found speed beside them")
        return self

    @property
    def counts(self) -> bool:
        """Whether positions are pulses of an encoder."""
        return self.speed is None


class GpioOutput(Section):
    """A line of a GPIO chip."""

    chip: File = Field(description="such as /dev/gpiochip0")
    line: _Line
    active_low: bool = False


class ModbusOutput(Section):
    """A coil of a PLC or of a remote I/O."""

    address: Peer
    unit: Unit = 1
    coil: Address


class GateOutput(Section):
    """What moves the gate."""

    gpio: GpioOutput | None = None
    modbus: ModbusOutput | None = None
    simulated: File | None = Field(default=None, description="file to which each change is written instead")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kinds = ("gpio", "modbus", "simulated")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"expected exactly one of {', '.join(kinds)}")
        return self


class GateConfig(Section):
    """One gate. What has no pass in time is thrown out there."""

    camera: Name = Field(description="whose verdicts count")
    after: Annotated[str, AfterValidator(_length)] | None = Field(
        default=None, description="way from the camera: 1.25 s, or 0.5 m with belt.speed"
    )
    after_pulses: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="way from the camera in pulses of the encoder"
    )
    window: Annotated[str, AfterValidator(_length)] | Annotated[float, Field(gt=0, le=1e9)] = Field(
        description="length of a part's place at the gate: 80 ms, 40 mm, or pulses; parts are further apart"
    )
    fires: Literal["pass", "eject"] = Field(
        default="pass",
        description="pass: the output lets a part pass and its rest throws out; eject: the reverse",
    )
    pulse: Duration | None = Field(default=None, description="how long the output stays active at least")
    output: GateOutput

    @model_validator(mode="after")
    def _way_and_window_are_alike(self) -> Self:
        if (self.after is None) == (self.after_pulses is None):
            raise ValueError("expected either after or after_pulses")
        way, window = self.way, self.length
        if way.value <= 0 or window.value <= 0:
            raise ValueError("expected after and window above 0")
        if way.unit != window.unit:
            wanted = {"s": "80 ms", "m": "40 mm", "pulses": "40"}[way.unit]
            raise ValueError(
                f"window: found {self.window}, expected it in the unit of after, such as {wanted}"
            )
        if window.value > way.value:
            raise ValueError("window: expected it shorter than the way from the camera")
        return self

    @property
    def way(self) -> Quantity:
        """Way from the camera to the gate, in seconds, metres or pulses."""
        if self.after_pulses is not None:
            return Quantity(self.after_pulses, "pulses")
        assert self.after is not None
        return quantity(self.after, "s|m")

    @property
    def length(self) -> Quantity:
        """Length of a part's place, likewise."""
        if isinstance(self.window, str):
            return quantity(self.window, "s|m")
        return Quantity(self.window, "pulses")
