"""What the sections of the plant's config are made of: quantities with units, and what every output has."""

import math
import re
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema

from lines.section import File, Name, Section
from verdicts.verdict import Decision


class Quantity(NamedTuple):
    """A number with its unit, in base units: seconds, metres, metres per second."""

    value: float
    unit: str


_UNITS: Final = {
    "s": (1.0, "s"),
    "ms": (1e-3, "s"),
    "min": (60.0, "s"),
    "m": (1.0, "m"),
    "cm": (1e-2, "m"),
    "mm": (1e-3, "m"),
    "m/s": (1.0, "m/s"),
    "mm/s": (1e-3, "m/s"),
    "m/min": (1 / 60, "m/s"),
}
_QUANTITY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([a-z/]{1,5})", re.ASCII)


def quantity(text: str, unit: str) -> Quantity:
    """Read a quantity such as ``1.25 s``.

    Args:
        text: a number and a unit.
        unit: what is measured: "s", "m", "m/s", or several such as "s|m".

    Raises:
        ValueError: it is something else; the text says what was expected.
    """
    match = _QUANTITY.fullmatch(text)
    factor, found = _UNITS.get(match[2] if match else "", (0.0, ""))
    if match is None or found not in unit.split("|"):
        examples = {"s": "1.25 s or 80 ms", "m": "0.5 m or 350 mm", "m/s": "0.4 m/s"}
        wanted = ", or ".join(examples[one] for one in unit.split("|"))
        raise ValueError(f"expected a number with its unit, such as {wanted}")
    return Quantity(float(match[1]) * factor, found)


def _seconds(text: str) -> str:
    quantity(text, "s")
    return text


def _duration(text: str) -> str:
    if quantity(text, "s").value <= 0:
        raise ValueError("expected more than 0, such as 1.25 s or 80 ms")
    return text


def seconds(text: str) -> float:
    """Give the seconds of a text that ``Seconds`` or ``Duration`` has checked."""
    return quantity(text, "s").value


def whole_port(text: str) -> int:
    """Read a port of TCP.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65535:
        raise ValueError("expected a port from 1 to 65535")
    return int(text)


Seconds = Annotated[
    str, AfterValidator(_seconds), WithJsonSchema({"type": "string", "examples": ["1.25 s", "80 ms"]})
]
Duration = Annotated[Seconds, AfterValidator(_duration)]
Finite = Annotated[float, Field(ge=-math.inf, allow_inf_nan=False)]


class OutputSection(Section):
    """What every output's section has: what it gets, and under which name the line keeps its place."""

    decisions: Annotated[tuple[Decision, ...], Field(min_length=1)] = Field(
        default=("pass", "reject", "fault"), description="which verdicts go there"
    )
    subscriber: Name | None = Field(
        default=None,
        description="under which the line keeps its place in the journal; plant.OUTPUT when absent",
    )
    line_key: File | None = Field(
        default=None, description="secret key of this output alone, where the line has a section curve"
    )
