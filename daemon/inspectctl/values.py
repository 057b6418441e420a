"""Values of options, as ``type`` of argparse."""

import argparse
import re
from typing import TYPE_CHECKING

from foundation.option_types import whole_number

if TYPE_CHECKING:
    from verdicts import Decision

DECISIONS: "tuple[Decision, ...]" = ("pass", "reject", "fault")


def decisions(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    for decision in chosen:
        if decision not in DECISIONS:
            raise argparse.ArgumentTypeError(f"found {decision!r}, expected some of {','.join(DECISIONS)}")
    return chosen


def seconds(text: str) -> float:
    """Read a span such as 30, 30 s or 2 min."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) *(s|min|h)?", text, re.ASCII)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected a time such as 30 s or 2 min")
    return float(match[1]) * {"min": 60, "h": 3600}.get(match[2] or "s", 1)


count = whole_number(1)
