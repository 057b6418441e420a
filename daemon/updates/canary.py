"""Whether a line throws out more parts than before: the first parts after an update tell."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from daemon.journal.reader import JournalReader
from verdicts.checks import MalformedMessage
from verdicts.verdict import decode_verdict

BEFORE: Final = 1000
"""Newest verdicts before an update, with which those after it are compared."""
_CHANCE: Final = 1e-4
"""So rare must what is seen be, if nothing had changed; it is looked at after each part."""


@dataclass(frozen=True)
class Tally:
    """Counts of verdicts."""

    parts: int = 0
    rejects: int = 0
    faults: int = 0

    def __str__(self) -> str:
        return f"{self.rejects} rejects and {self.faults} faults in {self.parts} parts"

    def and_of(self, payloads: Iterable[bytes]) -> "Tally":
        """Count more verdicts, as they are in the journal."""
        parts, rejects, faults = self.parts, self.rejects, self.faults
        for payload in payloads:
            try:
                decision = decode_verdict(payload).decision
            except MalformedMessage:
                continue  # of another version
            parts += 1
            rejects += decision == "reject"
            faults += decision == "fault"
        return Tally(parts, rejects, faults)


def newest(journal: JournalReader) -> Tally:
    """Count the newest verdicts of a journal.

    Raises:
        JournalFailed: it cannot be read.
    """
    last = journal.last_row()
    return Tally().and_of(payload for _, payload in journal.after(max(0, last - BEFORE), BEFORE))


def trouble(before: Tally, now: Tally, most_rejects: float | None) -> str | None:
    """Tell what is worse than before; None while nothing is.

    Args:
        before: what the line decided before.
        now: what it decided since.
        most_rejects: share of the parts that may be rejects or faults, 0 to 1; None: what was usual.
    """
    said = f"{now}, before {before}"
    if before.parts:
        if is_rise(before.rejects, before.parts, now.rejects, now.parts):
            return f"rejects rose: {said}"
        if is_rise(before.faults, before.parts, now.faults, now.parts):
            return f"faults rose: {said}"
    thrown_out = now.rejects + now.faults
    if most_rejects is not None and is_rise(round(most_rejects * BEFORE), BEFORE, thrown_out, now.parts):
        return f"more than {most_rejects:.1%} are thrown out: {said}"
    return None


def is_rise(hits_before: int, of_before: int, hits: int, of: int) -> bool:
    """Whether so many hits would hardly come by chance if their share were what it was.

    The share before is known only as well as its sample tells: hits are beta-binomial (Jeffreys' prior).
    """
    a, b = hits_before + 0.5, of_before - hits_before + 0.5
    if hits * of_before <= hits_before * of:
        return False
    tail = sum(
        math.exp(
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + _log_beta(k + a, of - k + b)
            - _log_beta(a, b)
        )
        for k in range(hits, of + 1)
    )
    return tail < _CHANCE


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
