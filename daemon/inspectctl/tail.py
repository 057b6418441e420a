import argparse
import signal
import sys
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import add_line_options, address_and_line
from daemon.inspectctl.terminal import complain
from daemon.inspectctl.values import count
from daemon.inspectctl.verdict_options import add_verdict_options, verdict_line
from foundation.errors import InputError

if TYPE_CHECKING:
    from verdicts import Lost, Subscription


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "tail",
        help="print verdicts as they come",
        description="Print verdicts as they come, until interrupted. Lost verdicts and silence go to stderr.",
    )
    add_line_options(parser)
    add_key_options(parser)
    add_verdict_options(parser)
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
    from verdicts import LineSilent

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
        print(verdict_line(verdict, as_json), flush=True)
        printed += 1


def _complain_of_loss(lost: "Lost") -> None:
    complain(f"lost {lost.last - lost.first + 1} verdicts: {lost.first} to {lost.last} of boot {lost.boot}")
