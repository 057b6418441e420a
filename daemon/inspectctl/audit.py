import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daemon.journal.audit import AuditResult


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "audit",
        help="check that nothing was removed from a journal or changed in it",
        description="Check every row of a journal, also while its daemon writes it. "
        "The exit code is 0 when it is intact, 1 when it is broken, 2 when the file is not a journal.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the journal: the config's journal.file")
    parser.add_argument(
        "--head",
        type=_head,
        metavar="HASH",
        help="journal.head of an earlier health message: rows missing at the end are then noticed too",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from daemon.journal.audit import audit
    from foundation.errors import printable

    result = audit(options.file, expected_head=options.head)
    if options.json:
        print(json.dumps({"intact": result.intact} | dataclasses.asdict(result), ensure_ascii=False))
    else:
        for line in _told(options.file, result):
            print(printable(line))
    return 0 if result.intact else 1


def _told(file: Path, result: "AuditResult") -> list[str]:
    rows = f"rows {result.first} to {result.last}" if result.last else "no rows"
    return [
        f"{file}: {'intact' if result.intact else 'BROKEN'}: line {result.line}, {rows}, "
        f"{result.verdicts} verdicts of {result.boots} starts of the daemon",
        *(f"broken: {line}" for line in result.broken),
        *(f"remark: {line}" for line in result.remarks),
        f"head {result.head}",
    ]


def _head(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"found {text!r:.80}, expected 64 hexadecimal digits")
    return text
