"""Which verdicts a command prints, and how."""

import argparse
from datetime import datetime
from typing import TYPE_CHECKING

from daemon.inspectctl.values import DECISIONS, decisions
from foundation.errors import printable

if TYPE_CHECKING:
    from verdicts import Verdict


def add_verdict_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--decisions``, and ``--json`` for ``verdict_line``."""
    parser.add_argument(
        "--decisions",
        type=decisions,
        default=DECISIONS,
        metavar="LIST",
        help="only these, such as reject,fault",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, as published")


def verdict_line(verdict: "Verdict", as_json: bool) -> str:
    """Show a verdict in one line: as JSON, or in columns for people."""
    if as_json:
        from verdicts import encode

        return encode(verdict)[1].decode()
    at = datetime.fromisoformat(verdict.captured_at).astimezone()
    decision = verdict.decision if verdict.reason is None else f"{verdict.decision} {verdict.reason}"
    score = "-" if verdict.score is None else f"{verdict.score:.4f}"
    columns = (
        f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}",
        f"{verdict.camera:<8}",
        f"{verdict.frame:>7}",
        f"{decision:<14}",
        f"{score:>7} / {verdict.threshold:.4f}",
        f"{printable(verdict.part or '-'):<16}",
        f"{verdict.latency_ms.total:>7.1f} ms",
        printable(verdict.archive or ""),
    )
    return "  ".join(columns).rstrip()
