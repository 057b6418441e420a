"""What another threshold would have done: the scores of some hours, sorted, so that each drag is a search.

Scores are kept as float32, which is what engines give, so nothing is rounded.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dashboard.records import LABELS, PASS, REJECT, Shown
from dashboard.rollup import NO_PRODUCT, Rollup

if TYPE_CHECKING:
    from calibration.reestimate import JudgedParts

MOST_VERDICTS: Final = 2_000_000
_MOST_WINDOWS: Final = 3
_FRESH_S: Final = 10.0
_STANDS_S: Final = 600.0
"""While somebody drags, what comes in meanwhile does not change the numbers."""
_BINS: Final = 120
_ROW = np.dtype([("row", np.int64), ("score", np.float32), ("decision", np.int8)])
_DEFECTS: Final = (LABELS.index("defect"), LABELS.index("disputed"))
_FALSE_REJECT: Final = LABELS.index("false_reject")


@dataclass(frozen=True)
class Key:
    """Which verdicts: of a product and a model, of a camera or of all, of so many hours.

    Scores of two models cannot be compared; without a model all are taken.
    """

    product: str | None
    model: str | None
    camera: str | None
    hours: float


class Side:
    """The passes or the rejects of a window: scores ascending, and the row of each."""

    def __init__(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        order = np.argsort(scores, kind="stable")
        self.scores = scores[order]
        self.rows = rows[order]

    def above(self, threshold: float) -> int:
        """Count the scores above a threshold."""
        # Compared as the daemon does, in double precision.
        return len(self.scores) - int(np.searchsorted(self.scores, np.float64(threshold), side="right"))


class Window:
    """The scores of some hours."""

    def __init__(self, rollup: Rollup, key: Key) -> None:
        self.key = key
        self.made_s = time.monotonic()
        since_us = int((time.time() - key.hours * 3600) * 1e6)
        self.last = rollup.last_row()
        self.first = max(rollup.first_row_since(since_us), self.last - MOST_VERDICTS + 1, 1)
        condition = "row BETWEEN ? AND ? AND at >= ? AND decision < 2 AND product = ? AND score IS NOT NULL"
        product = NO_PRODUCT if key.product is None else rollup.id_of(key.product)
        values: list[object] = [self.first, self.last, since_us, product]
        if key.model is not None:
            condition, values = f"{condition} AND model = ?", [*values, rollup.id_of(key.model)]
        if key.camera is not None:
            condition, values = f"{condition} AND camera = ?", [*values, rollup.id_of(key.camera)]
        with rollup.reading() as connection:
            query = f"SELECT row, score, decision FROM verdicts WHERE {condition}"
            found = np.fromiter(connection.execute(query, values), dtype=_ROW)
        self.condition, self.values = condition, values
        passed = found["decision"] == PASS
        self.passes = Side(found["score"][passed], found["row"][passed])
        self.rejects = Side(found["score"][~passed], found["row"][~passed])
        begin = rollup.fetch("SELECT at FROM verdicts WHERE row >= ? ORDER BY row LIMIT 1", self.first)
        self.since_us = max(since_us, begin[0][0]) if begin else since_us

    @property
    def total(self) -> int:
        """How many were judged."""
        return len(self.passes.scores) + len(self.rejects.scores)

    def preview(self, rollup: Rollup, threshold: float) -> "Change":
        """Tell what a threshold would have changed."""
        more = self.passes.above(threshold)
        fewer = len(self.rejects.scores) - self.rejects.above(threshold)
        labelled = rollup.fetch(
            "SELECT label, decision, count(*) FROM verdicts INDEXED BY verdicts_label "
            f"WHERE {self.condition} "
            "AND label > 0 AND ((decision = ? AND score <= ?) OR (decision = ? AND score > ?)) "
            "GROUP BY label, decision",
            *self.values,
            REJECT,
            threshold,
            PASS,
            threshold,
        )
        said = {(label, decision): number for label, decision, number in labelled}
        return Change(
            threshold=threshold,
            more_rejected=more,
            fewer_rejected=fewer,
            rejected=more + self.rejects.above(threshold),
            defects_passing=sum(said.get((label, REJECT), 0) for label in _DEFECTS),
            false_rejects_passing=said.get((_FALSE_REJECT, REJECT), 0),
            good_rejected=said.get((_FALSE_REJECT, PASS), 0),
        )

    def defects_rejected(self, rollup: Rollup, threshold: float) -> int:
        """Count the parts that somebody called defective and that a threshold rejects."""
        found = rollup.fetch(
            f"SELECT count(*) FROM verdicts INDEXED BY verdicts_label WHERE {self.condition} AND label > 0 "
            f"AND label IN {_DEFECTS} AND score > ?",
            *self.values,
            threshold,
        )
        return int(found[0][0])

    def judged_since(self, rollup: Rollup, at_us: int) -> "JudgedParts":
        """Give what was judged since a time, and what people said of the rejects among it."""
        from calibration.reestimate import JudgedParts

        first = rollup.fetch(
            "SELECT coalesce(min(row), ?) FROM verdicts WHERE row >= ? AND at >= ?",
            self.last + 1,
            max(self.first, rollup.first_row_since(at_us)),
            at_us,
        )[0][0]
        order = np.argsort(self.passes.rows)
        later = self.passes.rows[order] >= first
        passes = self.passes.scores[order][later].astype(np.float64)
        labelled = dict(
            rollup.fetch(
                f"SELECT label, count(*) FROM verdicts INDEXED BY verdicts_label WHERE {self.condition} "
                "AND label > 0 AND decision = ? AND row >= ? GROUP BY label",
                *self.values,
                REJECT,
                first,
            )
        )
        return JudgedParts(
            passes,
            rejects=int(np.count_nonzero(self.rejects.rows >= first)),
            false_rejects=labelled.get(_FALSE_REJECT, 0),
            defects=labelled.get(_DEFECTS[0], 0),  # a disputed one may be either
        )

    def changing(self, rollup: Rollup, threshold: float, offset: int, limit: int) -> list[Shown]:
        """Give parts that would change sides, nearest to the threshold first."""
        start = len(self.passes.scores) - self.passes.above(threshold)
        rejected = self.passes.rows[start + offset : start + offset + limit]
        end = len(self.rejects.scores) - self.rejects.above(threshold)
        skipped = max(0, offset - (len(self.passes.scores) - start))
        passed = self.rejects.rows[:end][::-1][skipped : skipped + limit - len(rejected)]
        rows = [int(row) for row in (*rejected, *passed)]
        if not rows:
            return []
        found = {
            verdict.row: verdict for verdict in rollup.rows(f"row IN ({', '.join('?' * len(rows))})", *rows)
        }
        return [found[row] for row in rows if row in found]

    def histogram(self, rollup: Rollup, threshold: float | None) -> dict[str, Any]:
        """Count scores by bins that hold nearly all; the last one holds what is higher."""
        everything = np.concatenate([self.passes.scores, self.rejects.scores])
        if not everything.size:
            return {"edges": [], "pass": [], "reject": [], "defect": []}
        low = float(everything.min())
        high = float(np.quantile(everything, 0.995))
        if threshold is not None:
            high = max(high, threshold + 0.5 * abs(threshold - low))
        high = min(float(everything.max()), high)
        edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
        inner = edges[1:-1]
        defects = rollup.fetch(
            f"SELECT score FROM verdicts INDEXED BY verdicts_label WHERE {self.condition} AND label > 0 "
            f"AND label IN {_DEFECTS}",
            *self.values,
        )
        return {
            "edges": edges.tolist(),
            "pass": _counts(self.passes.scores, inner),
            "reject": _counts(self.rejects.scores, inner),
            "defect": _counts(np.sort(np.array([score for (score,) in defects], np.float32)), inner),
        }

    def tail(self, rollup: Rollup, edges: list[float]) -> dict[str, list[float]] | None:
        """Fit the tail of the good parts' scores: passes, and rejects that people called false."""
        from calibration.tail import expected_rates

        false_rejects = rollup.fetch(
            f"SELECT score FROM verdicts INDEXED BY verdicts_label WHERE {self.condition} AND label > 0 "
            "AND label = ? AND decision = ?",
            *self.values,
            _FALSE_REJECT,
            REJECT,
        )
        scores = np.concatenate(
            [self.passes.scores.astype(np.float64), np.array([score for (score,) in false_rejects])]
        )
        if not edges:
            return None
        start = float(np.quantile(scores, 0.9)) if scores.size else 0.0
        thresholds = [edge for edge in edges if edge >= start]
        try:
            rates = expected_rates(scores, thresholds)
        except ValueError:
            return None
        return {"thresholds": thresholds, "rates": rates}


def _counts(ascending: NDArray[np.float32], inner: NDArray[np.float64]) -> list[int]:
    places = np.searchsorted(ascending, inner, side="right")
    return [int(number) for number in np.diff(np.concatenate([[0], places, [len(ascending)]]))]


@dataclass(frozen=True)
class Change:
    """What a threshold would have changed, as numbers of parts."""

    threshold: float
    more_rejected: int
    fewer_rejected: int
    rejected: int
    defects_passing: int
    false_rejects_passing: int
    good_rejected: int


def defects_let_through(
    rollup: Rollup, product: str | None, model: str | None, now: float, threshold: float
) -> int:
    """Count the parts that somebody called defective, rejected now and passed with another threshold.

    Of all that are kept, not of some hours: nobody shall choose the hours in which there were none.
    """
    condition, values = "", [NO_PRODUCT if product is None else rollup.id_of(product), now, threshold]
    if model is not None:
        condition, values = " AND model = ?", [*values, rollup.id_of(model)]
    found = rollup.fetch(
        f"SELECT count(*) FROM verdicts INDEXED BY verdicts_label WHERE label > 0 AND label IN {_DEFECTS} "
        f"AND product = ? AND score > ? AND score <= ?{condition}",
        *values,
    )
    return int(found[0][0])


class Windows:
    """The windows that were asked for last; for several threads."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, Window] = OrderedDict()
        self._turn = threading.Lock()

    def of(self, rollup: Rollup, key: Key, *, fresh: bool = False) -> Window:
        """Give a window; fresh: made just now."""
        with self._turn:
            window = self._windows.get(key)
            most_s = _FRESH_S if fresh else _STANDS_S
            if window is None or time.monotonic() - window.made_s > most_s:
                # The old one first: two large ones at once would need too much memory.
                self._windows.pop(key, None)
                while len(self._windows) >= _MOST_WINDOWS:
                    self._windows.popitem(last=False)
                while self._windows and sum(w.total for w in self._windows.values()) > MOST_VERDICTS // 2:
                    self._windows.popitem(last=False)
                window = Window(rollup, key)
                self._windows[key] = window
            self._windows.move_to_end(key)
            return window
