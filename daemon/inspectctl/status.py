import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import add_line_options, address_and_line
from daemon.inspectctl.terminal import complain
from daemon.inspectctl.values import DECISIONS
from foundation.errors import InputError, printable

if TYPE_CHECKING:
    from verdicts import Health


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="show how the line fares",
        description="Show the line's next health. Exit code 0 when it is running, else 1.",
    )
    add_line_options(parser)
    add_key_options(parser)
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    from verdicts import LineSilent, read_health

    address, line = address_and_line(options)
    try:
        health = read_health(address, line=line, curve=curve_keys(options))
    except LineSilent as silence:
        complain(str(silence))
        return 1
    except ValueError as error:
        raise InputError(str(error)) from error
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(_health_table(health), flush=True)
    return 0 if health.state == "running" else 1


def _health_table(health: "Health") -> str:
    counts = "   ".join(f"{health.verdicts[decision]} {decision}" for decision in DECISIONS)
    width = max([len("camera"), *map(len, health.cameras)])
    rows = [
        f"line      {health.line}",
        f"state     {health.state}" + (f": {printable(health.error)}" if health.error else ""),
        f"up        {timedelta(seconds=int(health.uptime_s))}",
        f"product   {health.product or '-'}",
        f"engine    {printable(health.engine)}",
        f"verdicts  {counts}",
        f"waiting   {health.waiting}",
        f"journal   {_journal(health)}",
        f"dropped   {health.dropped_messages} messages",
        "",
        f"{'camera':<{width}}  state      captured     faults  error",
    ]
    for name, camera in health.cameras.items():
        error = printable(camera.error or "")
        rows.append(
            f"{name:<{width}}  {camera.state:<7}  {camera.captured:>10}  {camera.faults:>9}  {error}".rstrip()
        )
    if health.subscribers:
        width = max(len("subscriber"), *map(len, health.subscribers))
        rows += ["", f"{'subscriber':<{width}}  state      unacknowledged"]
    for name, subscriber in health.subscribers.items():
        present = "present" if subscriber.present else "absent"
        rows.append(f"{name:<{width}}  {present:<7}  {subscriber.unacknowledged:>16}")
    return "\n".join(rows)


def _journal(health: "Health") -> str:
    journal = health.journal
    if journal is None:
        return "-"
    trouble = f": {printable(journal.error)}" if journal.error else ""
    return f"{journal.state}, {journal.entries} rows, head {journal.head[:12]}{trouble}"
