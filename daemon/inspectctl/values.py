"""Values of options, as ``type`` of argparse."""

import argparse
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


count = whole_number(1)
