"""Finds verdicts in the roll-up by what people ask for."""

from dataclasses import dataclass, replace
from typing import Any, Final

from dashboard.records import DECISIONS, LABELS, PASS, Shown
from dashboard.rollup import COLUMNS, NO_PRODUCT, Rollup

SORTS: Final = {
    "newest": "at DESC, row DESC",
    "oldest": "at, row",
    "highest": "score DESC, row DESC",
    "lowest": "score, row",
}
NO_PRODUCT_NAME: Final = "-"
"""Asks for the verdicts of a line that names no products."""
MOST_COUNTED: Final = 1_000_000


@dataclass(frozen=True)
class Wanted:
    """Which verdicts are wanted; empty and None: any.

    Attributes:
        peak: x0, y0, x1, y1: the peak lies within, in the camera's pixels.
        since_us: captured then or later.
        until_us: captured then or earlier.
        upto: row; later ones are left out.
        pictures: only those whose pictures were kept.
    """

    decisions: tuple[str, ...] = ("reject",)
    cameras: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    score_min: float | None = None
    score_max: float | None = None
    since_us: int | None = None
    until_us: int | None = None
    part: str | None = None
    peak: tuple[float, float, float, float] | None = None
    pictures: bool = False
    upto: int | None = None
    opinions: int | None = None
    sort: str = "newest"

    def without_end(self) -> "Wanted":
        """Give the same without ``upto``."""
        return replace(self, upto=None)


class _Condition:
    """A condition in SQL and its values, side by side."""

    def __init__(self) -> None:
        self._terms: list[str] = []
        self.values: list[Any] = []

    def add(self, term: str, *values: object) -> None:
        self._terms.append(term)
        self.values += values

    def one_of(self, column: str, values: list[Any]) -> None:
        self.add(f"{column} IN ({', '.join('?' * len(values))})", *values)

    def __str__(self) -> str:
        return " AND ".join(self._terms) or "1"


def condition(rollup: Rollup, wanted: Wanted) -> tuple[str, list[Any]]:
    """Say in SQL what is wanted."""
    made = _Condition()
    decisions = [DECISIONS.index(decision) for decision in wanted.decisions]
    made.one_of("decision", decisions)
    if PASS not in decisions:
        made.add("decision > 0")  # word for word what the index of rejects and faults is made of
    for column, names in (
        ("camera", wanted.cameras),
        ("product", wanted.products),
        ("model", wanted.models),
        ("reason", wanted.reasons),
    ):
        if names:
            numbers = [NO_PRODUCT if name == NO_PRODUCT_NAME else rollup.id_of(name) for name in names]
            made.one_of(column, numbers)
    if wanted.labels:
        made.one_of("label", [LABELS.index(label) for label in wanted.labels])
        if "none" not in wanted.labels:
            made.add("label > 0")  # likewise
    if wanted.kinds:
        made.one_of("kind", list(wanted.kinds))
    for column, sign, value in (
        ("score", ">=", wanted.score_min),
        ("score", "<=", wanted.score_max),
        ("at", ">=", wanted.since_us),
        ("at", "<=", wanted.until_us),
        ("row", "<=", wanted.upto),
        ("opinions", "=", wanted.opinions),
    ):
        if value is not None:
            made.add(f"{column} {sign} ?", value)
    if wanted.peak is not None:
        x0, y0, x1, y1 = wanted.peak
        made.add(
            "x BETWEEN ? AND ? AND y BETWEEN ? AND ?", min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        )
    if wanted.part is not None:
        made.add("instr(lower(part), lower(?)) > 0", wanted.part)
    if wanted.pictures:
        made.add("archive IS NOT NULL")
    return str(made), made.values


def count(rollup: Rollup, wanted: Wanted) -> int:
    """Count what is wanted, up to a million."""
    term, values = condition(rollup, wanted)
    query = f"SELECT count(*) FROM (SELECT 1 FROM verdicts WHERE {term} LIMIT {MOST_COUNTED})"
    return int(rollup.fetch(query, *values)[0][0])


def page(rollup: Rollup, wanted: Wanted, offset: int, limit: int) -> list[Shown]:
    """Give some of what is wanted, in its order."""
    term, values = condition(rollup, wanted)
    # First where they are, which the index alone tells; then what they hold.
    rows = f"SELECT row FROM verdicts WHERE {term} ORDER BY {SORTS[wanted.sort]} LIMIT ? OFFSET ?"
    query = f"SELECT {COLUMNS} FROM verdicts WHERE row IN ({rows}) ORDER BY {SORTS[wanted.sort]}"
    return [rollup.shown(row) for row in rollup.fetch(query, *values, limit, offset)]


def around(rollup: Rollup, verdict: Shown, number: int) -> list[Shown]:
    """Give what the same camera saw before and after, the oldest first, with the verdict itself."""
    camera = rollup.id_of(verdict.camera)
    before = rollup.rows("camera = ? AND row <= ? ORDER BY row DESC LIMIT ?", camera, verdict.row, number + 1)
    after = rollup.rows("camera = ? AND row > ? ORDER BY row LIMIT ?", camera, verdict.row, number)
    return [*reversed(before), *after]


def kept_passes(rollup: Rollup, verdict: Shown, number: int) -> list[Shown]:
    """Give passes of the same camera and model whose pictures were kept, the newest first."""
    return rollup.rows(
        "archive IS NOT NULL AND camera = ? AND decision = 0 AND model = ? AND label <> 1 AND row <> ? "
        "ORDER BY row DESC LIMIT ?",
        rollup.id_of(verdict.camera),
        rollup.id_of(verdict.model),
        verdict.row,
        number,
    )


def choices(rollup: Rollup) -> dict[str, Any]:
    """Tell by what one can filter."""
    scores = rollup.fetch(
        "SELECT min(score), max(score), min(at), max(at) FROM verdicts WHERE decision > 0 AND decision < 3"
    )[0]

    def names(query: str) -> list[str]:
        return sorted(name for (number,) in rollup.fetch(query) if (name := rollup.name_of(number)))

    return {
        "cameras": names("SELECT DISTINCT camera FROM hours"),
        "products": names("SELECT DISTINCT product FROM hours"),
        "models": names(
            "SELECT DISTINCT model FROM verdicts WHERE decision > 0 UNION "
            "SELECT model FROM (SELECT model FROM verdicts ORDER BY row DESC LIMIT 1)"
        ),
        "reasons": names("SELECT DISTINCT reason FROM reasons"),
        "kinds": sorted(
            kind for (kind,) in rollup.fetch("SELECT DISTINCT kind FROM verdicts WHERE label > 0") if kind
        ),
        "first_at": None if scores[2] is None else scores[2] / 1000,
        "last_at": None if scores[3] is None else scores[3] / 1000,
        "scores": None if scores[0] is None else [scores[0], scores[1]],
    }
