"""Values of options, as ``type`` of argparse."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdicts import Decision

DECISIONS: "tuple[Decision, ...]" = ("pass", "reject", "fault")


def decisions(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    for decision in chosen:
        if decision not in DECISIONS:
            raise argparse.ArgumentTypeError(f"found {decision!r}, expected some of {','.join(DECISIONS)}")
    return chosen


def roi(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(",") if number.isdecimal())
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected X,Y,WIDTH,HEIGHT in pixels")
    return numbers


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)
