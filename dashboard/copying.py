"""Copies a line's verdicts into its roll-up: from its journal, or from the wire where there is none."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from daemon.journal.chain import CLOCK, POWER_CUT, START, STOP, VERDICT, Row, hash_of
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from dashboard.database import DatabaseFailed
from dashboard.records import Shown, microseconds, shown
from dashboard.rollup import Rollup
from foundation.errors import InputError
from lines.line_config import LineConfig
from verdicts.checks import MalformedMessage
from verdicts.verdict import Verdict, decode_verdict

_log = logging.getLogger(__name__)
_ROWS_AT_ONCE: Final = 500
_SOONEST_S: Final = 0.25
"""Between two looks into the journal, however fast verdicts come."""
_LATEST_S: Final = 5.0
"""Without a verdict on the wire: events of the journal, such as a reload."""
_RETRY_S: Final = 5.0
_FORGET_EVERY_S: Final = 60.0
_MOST_WAITING: Final = 50_000
_EVENTS: Final = frozenset({START, STOP, CLOCK, POWER_CUT, "reload", "select"})


@dataclass(frozen=True)
class Trouble:
    """What the dashboard cannot do for a line now; the page shows it."""

    code: str
    detail: str
    since_us: int

    def content(self) -> dict[str, Any]:
        """Give it as the page gets it."""
        return {"code": self.code, "values": {}, "detail": self.detail, "since_at": self.since_us / 1000}


class Copying:
    """A thread that copies for one line.

    Attributes:
        trouble: why it cannot go on; None while it can.
        caught_up: set when it has copied all there was at the start.
        copied_until_us: capture of the newest verdict that was copied; 0 before the first.
    """

    def __init__(
        self,
        line: LineConfig,
        rollup: Rollup,
        *,
        keep_days: float,
        most_verdicts: int,
        changed: Callable[[], Any],
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            line: whose verdicts.
            rollup: where to.
            keep_days: for rejects and faults.
            most_verdicts: for passes.
            changed: called in the thread when something other than verdicts came, or trouble came or went.
        """
        self.trouble: Trouble | None = None
        self.caught_up = threading.Event()
        self.copied_until_us = 0
        self._line = line
        self._rollup = rollup
        self._keep_days = keep_days
        self._most_verdicts = most_verdicts
        self._changed = changed
        self._wire: deque[tuple[Verdict, str | None]] = deque(maxlen=_MOST_WAITING)
        self._wake = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"copying {line.name}", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def close(self) -> None:
        """End after the present transaction."""
        self._end.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def came(self, verdict: Verdict, product: str | None) -> None:
        """Tell of a verdict on the wire; called in the thread that listens."""
        if self._line.journal is None:
            self._wire.append((verdict, product))
        self._wake.set()

    def _run(self) -> None:
        source = self._from_wire if self._line.journal is None else self._from_journal
        while not self._end.is_set():
            try:
                source()
            except (InputError, JournalFailed, DatabaseFailed) as error:
                self._say(error)
            except Exception as error:  # one verdict must not end the copying of all others
                _log.exception("%s: copying", self._line.name)
                self._say(error)
            self._end.wait(_RETRY_S)

    def _say(self, error: Exception) -> None:
        if isinstance(error, DatabaseFailed):
            code = "rollup_failed"
        elif "is the journal of line" in str(error):
            code = "journal_of_another_line"
        else:
            code = "journal_unreadable"
        if self.trouble is None or self.trouble.detail != str(error):
            _log.warning("line %s: %s", self._line.name, error)
            self.trouble = Trouble(code, str(error), time.time_ns() // 1000)
            self._changed()

    def _no_trouble(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._changed()

    def _waits(self) -> Iterator[None]:
        """Give one turn after another: soon after a verdict came, and now and then without one."""
        forgotten_s = time.monotonic()
        while not self._end.is_set():
            yield
            self._no_trouble()
            if time.monotonic() - forgotten_s > _FORGET_EVERY_S:
                forgotten_s = time.monotonic()
                before = datetime.now(UTC) - timedelta(days=self._keep_days)
                before_us = int(before.timestamp() * 1e6)
                while (
                    self._rollup.forget(most=self._most_verdicts, before_us=before_us)
                    and not self._end.is_set()
                ):
                    pass
            self._end.wait(_SOONEST_S)
            self._wake.wait(_LATEST_S)
            self._wake.clear()

    def _from_wire(self) -> None:
        self.caught_up.set()
        for _ in self._waits():
            while self._wire and not self._end.is_set():
                batch = [self._wire.popleft() for _ in range(min(len(self._wire), _ROWS_AT_ONCE))]
                verdicts = [shown(verdict, product, self._line.archive) for verdict, product in batch]
                with self._rollup.transaction():
                    self._rollup.add(verdicts)
                self.copied_until_us = verdicts[-1].at_us

    def _from_journal(self) -> None:
        assert self._line.journal is not None
        with closing(JournalReader(self._line.journal)) as reader:
            if reader.line() != self._line.name:
                raise InputError(
                    f"{self._line.journal}: is the journal of line {reader.line()}; expected one of line "
                    f"{self._line.name}"
                )
            place = _Place(self._rollup, reader)
            for _ in self._waits():
                while (rows := reader.rows(place.row, _ROWS_AT_ONCE)) and not self._end.is_set():
                    self._copy(rows, place)
                self.caught_up.set()

    def _copy(self, rows: list[Row], place: "_Place") -> None:
        verdicts: list[Shown] = []
        events = False
        with self._rollup.transaction():
            for row in rows:
                if row.kind == VERDICT:
                    try:
                        verdict = decode_verdict(row.payload)
                    except (MalformedMessage, TypeError, AttributeError) as error:  # an altered row
                        _log.warning("%s: row %d is passed over: %s", self._line.journal, row.id, error)
                        continue
                    one = shown(verdict, place.product, self._line.archive)
                    if place.model is not None and place.model != one.model:
                        self._rollup.mark(one.at_us, "engine", {"from": place.model, "to": one.model})
                    place.model = one.model
                    known = place.thresholds.get(one.model)
                    if known is not None and known != one.threshold:
                        self._rollup.mark(
                            one.at_us, "threshold", {"from": known, "to": one.threshold, "model": one.model}
                        )
                        events = True
                    place.thresholds[one.model] = one.threshold
                    verdicts.append(one)
                elif row.kind in _EVENTS:
                    events = True
                    self._event(row, place)
            self._rollup.add(verdicts)
            place.row = rows[-1].id
            place.note(self._rollup, rows[-1])
        if verdicts:
            self.copied_until_us = verdicts[-1].at_us
        if events:
            self._changed()

    def _event(self, row: Row, place: "_Place") -> None:
        try:
            content = json.loads(row.payload)
            at_us = microseconds(row.written_at)
        except (ValueError, TypeError, RecursionError):
            return
        if not isinstance(content, dict):
            return
        if row.kind in {START, "reload", "select"}:
            product = content.get("product")
            product = product if isinstance(product, str) else None
            if product != place.product and place.product is not None:
                self._rollup.mark(at_us, "product", {"from": place.product, "to": product})
            place.product = product
            self._rollup.set_about(product_since=at_us)
        if row.kind != "select":
            self._rollup.mark(at_us, row.kind, {})


class _Place:
    """How far the journal was copied, and what held there."""

    def __init__(self, rollup: Rollup, reader: JournalReader) -> None:
        noted = json.loads(rollup.about("place") or "{}")
        self.row: int = noted.get("row", 0)
        self.product: str | None = noted.get("product")
        self.model: str | None = noted.get("model")
        self.thresholds: dict[str, float] = noted.get("thresholds", {})
        if self.row:
            found = reader.hash_of(self.row)
            # Gone with retention is as good as unchanged; anything else is another journal in its place.
            gone = found is None and reader.first_row() > self.row
            if not gone and (found is None or found.hex() != noted.get("hash")):
                self.row = 0

    def note(self, rollup: Rollup, newest: Row) -> None:
        """Write it down, in the transaction of what was copied."""
        try:
            newest_hash = hash_of(newest).hex()
        except TypeError as error:
            raise JournalFailed(f"row {newest.id} was altered") from error
        content = {
            "row": self.row,
            "hash": newest_hash,
            "product": self.product,
            "model": self.model,
            "thresholds": self.thresholds,
        }
        rollup.set_about(place=json.dumps(content))
