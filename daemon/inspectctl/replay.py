import argparse
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.control_options import add_control_options, line_control
from daemon.inspectctl.terminal import complain
from daemon.inspectctl.values import count
from daemon.inspectctl.verdict_options import add_verdict_options, verdict_line
from foundation.errors import InputError

if TYPE_CHECKING:
    from verdicts import Verdict

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="print verdicts from the journal",
        description="Print verdicts from the journal, by time or by number. What the journal no longer "
        "has is said on stderr.",
    )
    add_control_options(parser)
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="read this journal itself, as when the daemon is down"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--since",
        type=_moment,
        metavar="TIME",
        help="such as 2026-11-22T10:00 (local time unless it names a zone), or 10m for the last ten minutes",
    )
    which.add_argument("--boot", type=_boot, metavar="B", help="the verdicts of this start of the daemon")
    parser.add_argument("--first", type=count, metavar="N", help="with --boot: from this seq (default: 1)")
    parser.add_argument(
        "--last", type=count, metavar="M", help="with --boot: to this seq (default: the last)"
    )
    add_verdict_options(parser)
    parser.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    if options.since is not None and (options.first is not None or options.last is not None):
        raise InputError("--first, --last: expected with --boot only")
    if options.last is not None and (options.first or 1) > options.last:
        raise InputError(f"--first: found {options.first}, expected at most --last, {options.last}")
    if options.journal is not None:
        _from_file(options)
    else:
        _from_daemon(options)
    return 0


def _from_daemon(options: argparse.Namespace) -> None:
    from verdicts.request import LARGEST

    with line_control(options) as control:
        if options.since is not None:
            _print(control.replay_since(options.since), options)
        else:
            _print(control.replay(options.boot, options.first or 1, options.last or LARGEST), options)
        _tell_what_was_removed(options, control.kept_from)


def _from_file(options: argparse.Namespace) -> None:
    from daemon.journal.database import JournalFailed
    from daemon.journal.reader import JournalReader
    from verdicts.checks import MalformedMessage
    from verdicts.request import LARGEST
    from verdicts.verdict import decode_verdict

    if options.control is not None or options.config is not None:
        raise InputError("which journal: expected --journal alone, or the line's --control or --config")
    with JournalReader(options.journal) as reader:
        try:
            if options.since is not None:
                payloads = reader.since(options.since)
            else:
                payloads = reader.verdicts(options.boot, options.first or 1, options.last or LARGEST)
            _print(map(decode_verdict, payloads), options)
            oldest = reader.after(0, 1)
            kept_from = datetime.fromisoformat(decode_verdict(oldest[0][1]).captured_at) if oldest else None
        except (JournalFailed, MalformedMessage) as error:
            raise InputError(str(error)) from error
    _tell_what_was_removed(options, kept_from)


def _print(verdicts: "Iterator[Verdict]", options: argparse.Namespace) -> None:
    from tqdm import tqdm

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    found, due = 0, options.first or 1
    # On a terminal the verdicts themselves show that it goes on.
    for verdict in tqdm(verdicts, unit=" verdicts", delay=2, disable=sys.stdout.isatty()):
        if options.boot is not None and verdict.seq > due:
            complain(f"{due} to {verdict.seq - 1} of boot {verdict.boot} are not in the journal")
        found, due = found + 1, verdict.seq + 1
        if verdict.decision in options.decisions:
            print(verdict_line(verdict, options.json))
    if options.boot is not None and options.last is not None and due <= options.last:
        complain(f"{due} to {options.last} of boot {options.boot} are not in the journal")
    elif not found:
        complain("the journal has no such verdicts")
    sys.stdout.flush()


def _tell_what_was_removed(options: argparse.Namespace, kept_from: datetime | None) -> None:
    if options.since is not None and kept_from is not None and kept_from > options.since:
        complain(f"the journal begins with {kept_from.astimezone():%Y-%m-%d %H:%M:%S}")


def _moment(text: str) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a time such as 2026-11-22T10:00, or 90s, 10m, 12h, 7d ago"
        ) from error


def _boot(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{1,64}", text):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected the boot of a verdict, hexadecimal digits"
        )
    return text
