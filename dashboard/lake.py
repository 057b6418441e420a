"""What the lake says of the lines of all plants.

``inspectd-fleet report`` is asked, in a process of its own: DuckDB and its memory are no part of what serves
operators, and where they are not installed only these answers are missing.
"""

import itertools
import json
import subprocess
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from dashboard.jobs import installed
from foundation.errors import InputError, WorkFailed

REPORTS: Final = ("rejects", "places", "latency", "drift", "part")
MOST_ROWS: Final = 1000
_LONGEST_S: Final = 60.0
_PROG: Final = "inspectd-fleet: "
_AT_ONCE = threading.BoundedSemaphore(2)


class LakeBusy(Exception):
    """Others are asking it; everything else on this machine shall go on."""


def ask_lake(folder: Path, report: str, choice: Mapping[str, str | None], part: str | None) -> dict[str, Any]:
    """Give a report's columns and its rows, of which there are at most ``MOST_ROWS``.

    Args:
        folder: the lake.
        report: one of ``REPORTS``.
        choice: plant, line, since and until, as the command takes them; None for all.
        part: its id, for the report of one.

    Raises:
        WorkFailed: there is no lake, a package is missing, or it takes too long; the text is one line.
        LakeBusy: two are being made already.
    """
    if not _AT_ONCE.acquire(blocking=False):
        raise LakeBusy
    try:
        options = [f"--{key}={value}" for key, value in choice.items() if value is not None]
        return _asked([*options, report, *([] if part is None else ["--", part])], folder)
    finally:
        _AT_ONCE.release()


def try_lake(folder: Path) -> None:
    """See that there is one that can be read.

    Raises:
        InputError: there is none, or a package is missing.
    """
    try:
        _asked(["extent"], folder)
    except WorkFailed as failure:
        raise InputError(f"lake: {failure}") from failure


def _asked(arguments: list[str], folder: Path) -> dict[str, Any]:
    command = [installed("inspectd-fleet"), "report", f"--lake={folder}", "--json", *arguments]
    process = subprocess.Popen(
        ["nice", "-n", "10", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watch = threading.Timer(_LONGEST_S, process.kill)
    watch.start()
    try:
        assert process.stdout is not None and process.stderr is not None
        lines = list(itertools.islice(process.stdout, MOST_ROWS + 1))
        if len(lines) > MOST_ROWS:
            process.kill()
        said = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        code = process.wait()
    finally:
        is_late = not watch.is_alive()
        watch.cancel()
        process.kill()
        process.communicate()
    if is_late:
        raise WorkFailed(f"{folder}: no answer within {_LONGEST_S:g} s")
    if code != 0 and len(lines) <= MOST_ROWS:
        raise WorkFailed(said.removeprefix(_PROG) or f"inspectd-fleet ended with exit code {code}")
    rows = [json.loads(line) for line in lines[:MOST_ROWS]]
    return {
        "columns": [_column(name) for name in rows[0]] if rows else [],
        "rows": [[_value(name, value) for name, value in row.items()] for row in rows],
        "more": len(lines) > MOST_ROWS,
    }


def _column(name: str) -> str:
    """Give a column's name as keys of the page are written: "rejects %" becomes "rejects_share"."""
    return name.replace(" %", "_share").replace(" ", "_")


def _value(name: str, value: Any) -> Any:
    if name == "captured_at":
        return datetime.fromisoformat(value).timestamp() * 1000
    return value / 100 if name.endswith(" %") else value
