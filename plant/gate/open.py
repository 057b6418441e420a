"""Opens what the config says of the belt and the gates."""

from collections.abc import Callable
from typing import Final

from plant.config import Plant
from plant.gate.counters import open_counter
from plant.gate.digital import open_output
from plant.gate.gates import Gate, Gates
from plant.gate.parts import Parts
from plant.gate.position import CountedPosition, Position, SteadyPosition
from plant.gate.track import Track
from plant.outputs.open import require
from plant.section import quantity

_STEPS: Final = 16
"""Positions that are noted on the length of the shortest place of a part."""
_LONGEST_TRACK: Final = 30_000


def check_gates(plant: Plant) -> None:
    """Refuse what a missing package cannot do.

    Raises:
        InputError: it is not installed.
    """
    belt = plant.config.belt
    for name, gate in plant.config.gates.items():
        _require(gate.output.gpio is not None, gate.output.modbus is not None, f"gates.{name}.output")
    if belt is not None:
        _require(belt.gpio is not None, belt.modbus is not None, "belt")


def open_gates(plant: Plant, line_trouble: Callable[[], str | None]) -> Gates:
    """Open encoder and outputs.

    Args:
        plant: with at least one gate.
        line_trouble: tells why the line is not to be trusted now; None while it is.

    Raises:
        InputError: a device is not there, or something else has it.
    """
    speed = _speed(plant)
    ways = {name: _in_unit(gate.way.value, gate.way.unit, speed) for name, gate in plant.config.gates.items()}
    lengths = {
        name: _in_unit(gate.length.value, gate.length.unit, speed)
        for name, gate in plant.config.gates.items()
    }
    furthest = max(ways.values())
    step = max(min(lengths.values()) / _STEPS, furthest / _LONGEST_TRACK)
    track = Track(plant.state / "belt.track", step)
    position: Position
    if speed is not None:
        position = SteadyPosition(speed)
    else:
        belt = plant.config.belt
        assert belt is not None
        position = CountedPosition(
            open_counter(belt), track, way=furthest, bits=belt.bits, fastest=belt.fastest
        )
    gates = {
        name: Gate(
            name,
            config,
            ways[name],
            open_output(config.output, f"gates.{name}.output"),
            Parts(lengths[name] / 2, 0.0 if speed is not None else ways[name]),
        )
        for name, config in plant.config.gates.items()
    }
    return Gates(gates, position, track, line_trouble, recovers=plant.line.control is not None)


def _speed(plant: Plant) -> float | None:
    """Give the speed in the unit of the ways; None for a belt that is counted."""
    belt = plant.config.belt
    if belt is None:
        return 1.0
    return None if belt.speed is None else quantity(belt.speed, "m/s").value


def _in_unit(value: float, unit: str, speed: float | None) -> float:
    """Turn seconds into metres where the belt has a speed."""
    return value * speed if unit == "s" and speed is not None else value


def _require(gpio: bool, modbus: bool, key: str) -> None:
    if gpio:
        require("gpiod", key)
    if modbus:
        require("pymodbus", key)
