"""The table of faults as Markdown, and as JSON beside it."""

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from faults.trial import STEADY, Row
from foundation.files import write_whole

_COMMAND = "pytest -m faults --reliability docs/reliability.md"
_HEAD = """# What breaks, and what it costs

Each row is one fault that was caused on a running daemon: real processes, signals, sockets and file systems,
with a journal, a control socket and a subscriber. Made by `{command}`
on {date}: {machine}.

- **Detected within**: from the fault to the first message, or line of the log, that tells of it.
- **Verdicts lost**: captured frames without a verdict, and published verdicts that the journal lacks. Counted
  from the cameras' own counters, the wire and the journal together, over all starts of the daemon.
- **Duplicate**: a second verdict on one frame, or one verdict twice, on the wire or in the journal.
- **Recovered within**: from the fault to the first of {steady} parts in a row that are judged again. Or when
  the daemon ended, as it should, and with which exit code. Or, where the line went on, the longest pause
  between two of its verdicts.

Every test also checks that the expected fault verdicts came and no others, and that `inspectctl audit` finds
the journal intact. How long it takes to notice a fault depends on the config, too: the tests set short times
such as `stalled_after_s: 0.5` and `engine_timeout_s: 0.5`. Health comes every second.

A journal that is removed, damaged, or cannot be written until the end cannot hold everything that was
published. In these rows of the section Journal every verdict has to be on the wire.

A power cut takes what was not on the disk yet. Without `durable: true` that includes verdicts of the last two
seconds that were published. They count as lost here. The journal, the log and a gap in `seq` say so.

`pytest tests/faults/test_faults_at_random.py --lives 100` tries faults in any order. Each life of a line
has twenty random events: its config changes, its daemon or a camera is killed, stopped or held up, its engine
fails or hangs. Meanwhile a gate acknowledges what it gets. Every frame has to get one verdict, and the gate
has to get each once.

"""
_COLUMNS = (
    "| fault | told by | detected within | verdicts lost | duplicate | recovered within | of verdicts |"
)


class Rows:
    """The rows of one run of the tests."""

    def __init__(self) -> None:
        self.failed = False
        self._rows: dict[str, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, test: str, row: Row) -> None:
        self._rows[test] = row

    def write(self, page: Path) -> None:
        """Write the page, and the same as JSON beside it."""
        rows = list(self._rows.values())
        date = f"{datetime.now(UTC):%Y-%m-%d}"
        head = _HEAD.format(command=_COMMAND, date=date, machine=_machine(), steady=STEADY)
        write_whole(page, (head + _summary(rows) + _tables(rows)).encode())
        content = {
            "command": _COMMAND,
            "date": date,
            "machine": _machine(),
            "faults": [asdict(row) for row in rows],
        }
        write_whole(
            page.with_suffix(".json"), json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
        )


def _summary(rows: list[Row]) -> str:
    ran = [row for row in rows if row.not_run is None]
    lost, duplicates = (sum(getattr(row, key) or 0 for row in ran) for key in ("lost", "duplicates"))
    verdicts = sum(row.verdicts for row in ran)
    return (
        f"{len(ran)} faults, {verdicts:,} verdicts: {lost} lost, {duplicates} duplicate"
        + (f"; {len(rows) - len(ran)} not run" if len(ran) < len(rows) else "")
        + ". The same figures are in [reliability.json](reliability.json).\n"
    )


def _tables(rows: list[Row]) -> str:
    text = ""
    for group in dict.fromkeys(row.group for row in rows):
        text += f"\n## {group}\n\n{_COLUMNS}\n|---|---|---|---|---|---|---|\n"
        text += "".join(_line(row) for row in rows if row.group == group)
    return text


def _line(row: Row) -> str:
    if row.not_run is not None:
        return f"| {row.fault} | not run: {row.not_run} | | | | | |\n"
    return (
        f"| {row.fault} | {row.told_by} | {_time(row.detected_ms)} | {row.lost} | {row.duplicates} "
        f"| {_recovery(row)} | {row.verdicts:,} |\n"
    )


def _recovery(row: Row) -> str:
    if row.recovered_ms is not None:
        return _time(row.recovered_ms)
    if row.exit_code is not None:
        return f"ends with exit code {row.exit_code} after {_time(row.exit_ms)}"
    return f"goes on; longest pause {_time(row.longest_pause_ms)}"


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def _machine() -> str:
    """Describe the machine as far as it matters for the times."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu}, {gigabytes:.0f} GB, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )
