import argparse
import math
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.control_options import control_in
from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import add_line_options, address_and_line
from daemon.inspectctl.terminal import complain
from daemon.inspectctl.values import DECISIONS
from foundation.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdicts import CameraStatistics, DriftHealth, Health, Statistics


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="show how the line fares",
        description="Show the line's next health and, where its control address is known, fault reasons, "
        "rates and latencies. Exit code 0 when it is running, else 1.",
    )
    add_line_options(parser)
    parser.add_argument(
        "--control", metavar="ADDRESS", help="the line's control address, where there is no --config"
    )
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
    print(_health_table(health, _statistics(options)), flush=True)
    return 0 if health.state == "running" else 1


def _statistics(options: argparse.Namespace) -> "Statistics | None":
    """Ask for what health does not tell; None where the line has no control address, or does not answer."""
    from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage

    address = options.control or (None if options.config is None else control_in(options.config))
    if address is None:
        return None
    try:
        with LineControl(address, curve=curve_keys(options), timeout_s=1.0) as control:
            return control.statistics()
    except ValueError as error:
        raise InputError(str(error)) from error
    except (ControlRefused, ControlSilent, MalformedMessage):
        return None


def _health_table(health: "Health", statistics: "Statistics | None") -> str:
    counts = "   ".join(f"{health.verdicts[decision]} {decision}" for decision in DECISIONS)
    width = max([len("camera"), *map(len, health.cameras)])
    rows = [
        f"line      {health.line}",
        f"state     {health.state}" + (f": {printable(health.error)}" if health.error else ""),
        f"up        {timedelta(seconds=int(health.uptime_s))}",
        f"product   {health.product or '-'}",
        f"engine    {printable(health.engine)}",
        f"verdicts  {counts}",
        *_statistics_rows(statistics),
        f"waiting   {health.waiting}",
        f"journal   {_journal(health)}",
        f"dropped   {health.dropped_messages} messages",
        *_golden_rows(health),
        *drift_rows(health.drift or {}),
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


def _statistics_rows(statistics: "Statistics | None") -> list[str]:
    if statistics is None:
        return []
    reasons = "   ".join(f"{number} {printable(reason)}" for reason, number in statistics.reasons.items())
    took, last = "-", "-"
    if (latency := statistics.latency_ms) is not None:
        took = f"median {latency.median:.1f} ms, 99 % {latency.p99:.1f} ms, longest {latency.longest:.1f} ms"
    if (fault := statistics.last_fault) is not None:
        where = f"camera {printable(fault.camera)}, frame {fault.frame}, {printable(fault.captured_at)}"
        last = f"fault {printable(fault.reason)}, {where}"
    return [
        f"faults    {reasons or '-'}",
        f"rate      {statistics.per_second:g} per second in the last {statistics.window_s:.0f} s",
        f"latency   {took}",
        f"last      {last}",
        *(f"parts     {printable(name)}: {_seen(camera)}" for name, camera in statistics.cameras.items()),
    ]


def drift_rows(cameras: "Mapping[str, DriftHealth]") -> list[str]:
    """Tell what has changed at each camera since the calibration."""
    rows = []
    for name, drift in cameras.items():
        if drift.cause is None:
            rows.append(f"drift     {name}: none in {drift.parts} parts that were looked at")
        else:
            amount, do = printable(drift.amount or ""), printable(drift.do or "")
            rows += [
                f"drift     {name}: {drift.cause} since frame {drift.since_frame}: {amount}",
                f"          {do}",
            ]
    return rows


def _seen(camera: "CameraStatistics") -> str:
    told = [f"{camera.parts} taken of {camera.pictures} pictures", f"{camera.missed} missed"]
    if camera.triggers:
        told.append(f"{camera.triggers} triggers, {camera.double_triggers} of them double")
    if camera.speed_px_per_s is not None:
        told.append(f"belt at {math.hypot(*camera.speed_px_per_s):.0f} pixels/s")
    return ", ".join(told)


def _golden_rows(health: "Health") -> list[str]:
    golden = health.golden
    if golden is None:
        return []
    at = f" at {printable(golden.tested_at)}" if golden.tested_at else ""
    rows = [f"golden    {golden.state}{at}, {golden.samples} samples, {golden.failed} failed"]
    if golden.withheld:
        rows.append("          no part is released until they pass: each is a fault, golden")
    return rows + ([f"          {printable(golden.error)}"] if golden.error else [])


def _journal(health: "Health") -> str:
    journal = health.journal
    if journal is None:
        return "-"
    trouble = f": {printable(journal.error)}" if journal.error else ""
    return f"{journal.state}, {journal.entries} rows, head {journal.head[:12]}{trouble}"
