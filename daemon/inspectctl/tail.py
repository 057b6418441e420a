import argparse
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import add_line_options, address_and_line
from daemon.inspectctl.terminal import complain
from daemon.inspectctl.values import DECISIONS, count, decisions
from foundation.errors import InputError, printable

if TYPE_CHECKING:
    from verdicts import Lost, Subscription, Verdict


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "tail",
        help="print verdicts as they come",
        description="Print verdicts as they come, until interrupted. Lost verdicts and silence go to stderr.",
    )
    add_line_options(parser)
    add_key_options(parser)
    parser.add_argument(
        "--decisions",
        type=decisions,
        default=DECISIONS,
        metavar="LIST",
        help="only these, such as reject,fault",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, as published")
    parser.add_argument("--count", type=count, metavar="N", help="end after N verdicts")
    parser.set_defaults(run=_tail)


def _tail(options: argparse.Namespace) -> int:
    from verdicts import subscribe

    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    address, line = address_and_line(options)
    try:
        subscription = subscribe(
            address,
            line=line,
            decisions=options.decisions,
            on_lost=_complain_of_loss,
            curve=curve_keys(options),
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        with subscription:
            _print_verdicts(subscription, options.json, options.count)
    except KeyboardInterrupt:
        pass  # the usual end
    return 0


def _print_verdicts(subscription: "Subscription", as_json: bool, most: int | None) -> None:
    from verdicts import LineSilent, encode

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    printed = 0
    silent_since: object = "the start"
    while most is None or printed < most:
        try:
            verdict = next(subscription)
        except LineSilent as silence:
            if silence.health is not silent_since:  # once per silence, not every few seconds all night
                silent_since = silence.health
                complain(str(silence))
            continue
        print(encode(verdict)[1].decode() if as_json else verdict_line(verdict), flush=True)
        printed += 1


def verdict_line(verdict: "Verdict") -> str:
    """Show a verdict in columns."""
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


def _complain_of_loss(lost: "Lost") -> None:
    complain(f"lost {lost.last - lost.first + 1} verdicts: {lost.first} to {lost.last} of boot {lost.boot}")
