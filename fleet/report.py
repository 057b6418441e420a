"""``inspectd-fleet report``: what the lake says, as tables or as JSON."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from foundation.errors import InputError

if TYPE_CHECKING:
    from fleet.store import Store

_log = logging.getLogger(__name__)
_PLACE_PX: Final = 64
"""Side of the squares in which defect places are counted."""

_WHAT: Final = "coalesce(product, model)"
"""Products are not known of every verdict (docs/fleet.md); the model is."""

_QUERIES: Final = {
    "rejects": f"""
        SELECT plant, line, {_WHAT} AS product, day, count(*) AS parts,
            count(*) FILTER (decision = 'reject') AS rejects,
            count(*) FILTER (decision = 'fault') AS faults,
            round(100.0 * count(*) FILTER (decision = 'reject') / count(*), 3) AS "rejects %"
        FROM chosen GROUP BY ALL ORDER BY ALL""",
    "places": f"""
        SELECT plant, line, camera, {_WHAT} AS product, day,
            peak_x // {_PLACE_PX} * {_PLACE_PX} AS x, peak_y // {_PLACE_PX} * {_PLACE_PX} AS y,
            count(*) AS rejects, round(max(score), 4) AS highest
        FROM chosen WHERE decision = 'reject' AND peak_x IS NOT NULL
        GROUP BY ALL ORDER BY rejects DESC, plant, line, camera, day, y, x LIMIT 100""",
    "latency": """
        SELECT plant, line, day, count(*) AS parts, round(quantile_cont(total_ms, 0.5), 2) AS "median ms",
            round(quantile_cont(total_ms, 0.99), 2) AS "p99 ms", round(max(total_ms), 2) AS "longest ms",
            round(quantile_cont(epoch(stored_at) - epoch(captured_at), 0.99), 2) AS "p99 s to hub"
        FROM chosen GROUP BY ALL ORDER BY ALL""",
    "drift": f"""
        WITH days AS (
            SELECT {_WHAT} AS product, plant, line, camera, model, day, count(*) AS passes,
                median(score / threshold) AS middle, quantile_cont(score / threshold, 0.99) AS high
            FROM chosen WHERE decision = 'pass' AND threshold > 0 GROUP BY ALL)
        SELECT product, plant, line, camera, day, passes, round(middle, 4) AS "median of threshold",
            round(high, 4) AS "p99 of threshold",
            round(middle - first_value(middle) OVER here, 4) AS "since first day",
            round(middle - median(middle) OVER there, 4) AS "from other lines"
        FROM days
        WINDOW here AS (PARTITION BY product, plant, line, camera, model ORDER BY day),
            there AS (PARTITION BY product, model, day)
        ORDER BY product, plant, line, camera, day""",
    "missing": """
        WITH once AS (SELECT DISTINCT plant, line, boot, seq FROM chosen),
        steps AS (SELECT *, lead(seq) OVER (PARTITION BY plant, line, boot ORDER BY seq) AS next FROM once)
        SELECT plant, line, boot, seq + 1 AS "first", next - 1 AS "last", next - seq - 1 AS missing
        FROM steps WHERE next > seq + 1 ORDER BY ALL""",
    "extent": """
        SELECT plant, line, count(DISTINCT (boot, seq)) AS verdicts,
            count(*) - count(DISTINCT (boot, seq)) AS twice,
            count(DISTINCT boot) AS boots, arg_min(seq, captured_at) AS "first",
            arg_max(seq, (captured_at, seq)) AS "last", min(captured_at) AS since, max(captured_at) AS until
        FROM chosen GROUP BY ALL ORDER BY plant, line""",
    "part": """
        SELECT plant, line, camera, captured_at, decision, reason, score, threshold, peak_x, peak_y, product,
            model, boot, seq, frame, archive
        FROM chosen WHERE part = $part ORDER BY captured_at, plant, line, boot, seq""",
}
KINDS: Final = tuple(_QUERIES)


@dataclass(frozen=True)
class Choice:
    """Which rows count.

    Attributes:
        plant: only this one.
        line: only this one.
        since: captured on this day or later.
        until: captured on this day or before.
        part: its id, for the report of one.
    """

    plant: str | None = None
    line: str | None = None
    since: date | None = None
    until: date | None = None
    part: str | None = None

    def condition(self) -> tuple[str, dict[str, str]]:
        """Give SQL and its values; on columns that are folders, so that other files are not read."""
        given = {
            "plant = $plant": ("plant", self.plant),
            "line = $line": ("line", self.line),
            "day >= $since": ("since", None if self.since is None else self.since.isoformat()),
            "day <= $until": ("until", None if self.until is None else self.until.isoformat()),
        }
        used = {sql: pair for sql, pair in given.items() if pair[1] is not None}
        values = {name: value for name, value in used.values() if value is not None}
        return " AND ".join(used) or "true", values


def report(folder: Path, kind: str, choice: Choice, *, as_json: bool, store: "Store | None" = None) -> int:
    """Print a report; give the exit code.

    Args:
        folder: the lake.
        kind: one of ``KINDS``.
        choice: which rows count.
        as_json: one object for each row, instead of a table.
        store: of pictures; the report of a part then names each verdict's frame there, by its SHA-256.

    Raises:
        InputError: there is no lake, or it cannot be read.
    """
    names, rows = query(folder, kind, choice)
    if store is not None:
        key = [names.index(name) for name in ("plant", "line", "boot", "seq")]
        frames = _frames(store, ["/".join(str(row[place]) for place in key) for row in rows])
        names, rows = [*names, "picture"], [(*row, frame) for row, frame in zip(rows, frames, strict=True)]
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False))
    else:
        print(_table(names, rows))
    return 0


def _frames(store: "Store", verdicts: Sequence[str]) -> list[str | None]:
    """Name the frame that a store has of each verdict; a store that is away costs no report."""
    from fleet.store import StoreFailed

    try:
        return [store.pictures_of(verdict).get("frame") for verdict in verdicts]
    except StoreFailed as error:
        _log.warning("pictures: %s", error)
        return [None] * len(verdicts)


def query(folder: Path, kind: str, choice: Choice) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Give names of columns and rows of a report.

    Raises:
        InputError: there is no lake, or it cannot be read.
    """
    import duckdb

    from fleet.delta import open_to_read, view

    condition, values = choice.condition()
    if kind == "part":
        values["part"] = choice.part or ""
    try:
        database = view(open_to_read(folder))
        found = database.execute(
            f"WITH chosen AS (SELECT * FROM verdicts WHERE {condition}) SELECT * FROM ({_QUERIES[kind]})",
            values,
        )
        return [column[0] for column in found.description or ()], found.fetchall()
    except duckdb.Error as error:
        raise InputError(f"{folder}: cannot be read: {' '.join(str(error).split()):.300}") from error


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Align columns: numbers to the right."""
    if not rows:
        return "nothing found"
    texts = [[_shown(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    right = [
        all(isinstance(value, int | float | None) for value in column) for column in zip(*rows, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(names), *map(line, texts)])


def _shown(value: object) -> str:
    from foundation.errors import printable

    return "-" if value is None else printable(str(_plain(value)))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%fZ}"
    return value
