"""Whether a journal is whole: nothing altered, inserted or removed, and one verdict for every frame."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from daemon.journal.chain import CLOCK, NOTHING, POWER_CUT, START, STOP, UNJOURNALED, VERDICT, Row, hash_of
from daemon.journal.database import SCHEMA, JournalFailed
from daemon.journal.ranges import Ranges
from daemon.journal.reader import JournalReader
from foundation.yaml_file import shown

_CHUNK_ROWS: Final = 1000
_MOST_TOLD: Final = 100


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found.

    Attributes:
        line: name of the line.
        first: number of the oldest row; 0 in an empty journal.
        last: number of the newest row that was looked at.
        head: its SHA-256 in hexadecimal.
        verdicts: how many of the rows are verdicts.
        boots: how many starts of the daemon they belong to.
        broken: what is wrong, in the order of the rows; the first says where the chain breaks.
        remarks: what is in order but worth knowing, such as removal by retention.
    """

    line: str
    first: int
    last: int
    head: str
    verdicts: int
    boots: int
    broken: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken


def audit(file: Path, *, expected_head: str | None = None) -> AuditResult:
    """Check a whole journal, also while its daemon writes it; shows its progress on stderr.

    Args:
        file: the journal.
        expected_head: the head in an earlier health message, 64 hexadecimal digits. The journal has to reach
            it; so rows missing at the end are noticed, too.

    Raises:
        InputError: the file is missing, no journal, or cannot be read at all.
    """
    with JournalReader(file) as reader:
        walk = _Walk(expected_head)
        try:
            walk.all(reader)
        except JournalFailed as error:
            walk.broken.append(f"after row {walk.row_id} the file cannot be read: {error}")
        return walk.result()


class _Boot:
    """What was seen of one start of the daemon."""

    def __init__(self, removed: dict[str, Any] | None) -> None:
        removed = removed or {"seq": (), "frames": {}}
        self.seqs = Ranges(removed["seq"])
        self.frames = {camera: Ranges(spans) for camera, spans in removed["frames"].items()}
        self.never_written = 0
        self.complete = False
        """Whether no more rows of it can come."""


class _Walk:
    """The state of an audit on its way from the oldest row to the newest."""

    def __init__(self, expected_head: str | None) -> None:
        self.broken: list[str] = []
        self.remarks: list[str] = []
        self.row_id = 0
        self._expected = None if expected_head is None else bytes.fromhex(expected_head)
        self._expected_at: int | None = None
        self._hash = NOTHING
        self._line = ""
        self._first = 0
        self._verdicts = 0
        self._boots: dict[str, _Boot] = {}
        self._through = 0
        self._through_hash = NOTHING

    def all(self, reader: JournalReader) -> None:
        from tqdm import tqdm

        self._line = reader.line()
        self._check_schema(reader.schema())
        self._first, last = reader.first_row(), reader.last_row()
        # Read after the oldest row: what is removed from now on only makes the journal begin later.
        self._learn_retention(reader)
        with tqdm(
            total=max(0, last - self._first + 1), unit="row", desc="audit", disable=None, leave=False
        ) as progress:
            self._begin(self._first)
            while self.row_id < last and (rows := reader.rows(self.row_id, _CHUNK_ROWS)):
                if rows[0].id > self.row_id + 1:
                    self._learn_retention(reader)  # it may have overtaken this walk
                for row in rows:
                    if row.id > last:
                        break
                    self._take(row)
                    progress.update()
            if self.row_id < last:
                self.broken.append(f"rows {self.row_id + 1} to {last} are missing: the file has lost its end")
        self._conclude()

    def result(self) -> AuditResult:
        return AuditResult(
            line=self._line,
            first=self._first,
            last=self.row_id,
            head=self._hash.hex(),
            verdicts=self._verdicts,
            boots=len(self._boots),
            broken=tuple(_shortened(self.broken)),
            remarks=tuple(_shortened(self.remarks)),
        )

    def _check_schema(self, found: dict[str, str]) -> None:
        self.broken += [
            f"{name}: its definition is not the one that the daemon makes"
            for name, statement in SCHEMA.items()
            if found.get(name) != statement
        ]
        self.broken += [f"{name}: is not part of a journal" for name in found if name not in SCHEMA]

    def _learn_retention(self, reader: JournalReader) -> None:
        try:
            said = reader.retention()
        except JournalFailed:
            return  # its row has been altered, which the walk is going to tell
        if said is None:
            return
        try:
            removed = {name: _Boot(spans) for name, spans in said["removed"].items()}
            self._through, self._through_hash = int(said["through"]), bytes.fromhex(said["hash"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # its row has been altered, which the walk is going to tell
        # It covers all rows up to the one it names, those that this walk has seen among them.
        seen, self._boots = self._boots, removed
        for name, boot in seen.items():
            if name in self._boots:
                self._boots[name].never_written, self._boots[name].complete = (
                    boot.never_written,
                    boot.complete,
                )

    def _begin(self, first: int) -> None:
        if first <= 1:
            return
        if first > self._through + 1:
            self.broken.append(
                f"rows {self._through + 1} to {first - 1} are missing, and retention did not remove them"
            )
        if self._through:
            self.remarks.append(f"retention has removed the rows up to {first - 1}")

    def _take(self, row: Row) -> None:
        due = self.row_id + 1 if self.row_id else self._first
        if row.id > due and row.id > self._through + 1:
            self.broken.append(f"rows {due} to {row.id - 1} are missing")
        if fault := _misfit(row):
            self.broken.append(f"row {row.id} was altered: {fault}")
            self.row_id, self._hash = row.id, NOTHING
            return
        self._check_link(row, follows=row.id == due and self.row_id > 0)
        self.row_id, self._hash = row.id, hash_of(row)
        if self._hash == self._expected:
            self._expected_at = row.id
        if row.id == self._through and self._hash != self._through_hash:
            self.broken.append(f"row {row.id} is not the one that retention saw there")
        try:
            self._take_content(row, json.loads(row.payload))
        except (KeyError, TypeError, ValueError, RecursionError):
            self.broken.append(f"row {row.id} was altered: its payload is not that of kind {row.kind!r}")

    def _check_link(self, row: Row, follows: bool) -> None:
        if row.id == 1 and row.previous != NOTHING:
            self.broken.append("row 1 was altered: it names a row before it")
        elif follows and row.previous != self._hash:
            self.broken.append(
                f"row {row.id} does not follow row {row.id - 1}: "
                "one of the two was altered, inserted or exchanged"
            )
        elif row.id == self._through + 1 and self._through and row.previous != self._through_hash:
            self.broken.append(f"row {row.id} does not follow what retention removed before it")
        if row.previous == self._expected:
            self._expected_at = row.id - 1

    def _take_content(self, row: Row, content: dict[str, Any]) -> None:
        if row.kind == VERDICT:
            self._take_verdict(row)
            if content.get("line") != self._line:
                self.broken.append(f"row {row.id} is a verdict of line {content.get('line')!r}")
        elif row.kind == UNJOURNALED:
            boot = self._boot(content["boot"])
            boot.never_written += content["last"] - content["first"] + 1
            self.remarks.append(
                f"row {row.id}: the verdicts {content['first']} to {content['last']} of boot "
                f"{content['boot']} were given while the journal could not be written"
            )
        elif row.kind == POWER_CUT:
            self.remarks.append(
                f"row {row.id}: after a power cut, the verdicts of boot {content['boot']} that followed "
                f"{content['last']} may have been published and are lost"
            )
        elif row.kind == CLOCK:
            self.remarks.append(f"row {row.id}: the clock was set by {content['set_by_s']} s")
        elif row.kind == START:
            for boot in self._boots.values():
                boot.complete = True
            if row.boot is not None:
                self._boot(row.boot)
        elif row.kind == STOP and row.boot is not None:
            self._boot(row.boot).complete = True

    def _take_verdict(self, row: Row) -> None:
        assert row.boot is not None and row.seq is not None
        assert row.camera is not None and row.frame is not None
        self._verdicts += 1
        if row.id <= self._through:
            return  # on its way out, and counted as removed already
        boot = self._boot(row.boot)
        if not boot.seqs.add(row.seq):
            self.broken.append(f"row {row.id}: a second verdict {row.seq} of boot {row.boot}")
        if not boot.frames.setdefault(row.camera, Ranges()).add(row.frame):
            self.broken.append(
                f"row {row.id}: a second verdict on frame {row.frame} of camera {row.camera}, boot {row.boot}"
            )

    def _boot(self, name: str) -> _Boot:
        return self._boots.setdefault(name, _Boot(None))

    def _conclude(self) -> None:
        if self._expected is not None and self._expected_at is None:
            self.broken.append(
                "no row has the expected head as its hash: the end is missing, or it is another journal"
                + (", or retention has removed that row since" if self._first > 1 else "")
            )
        for name, boot in self._boots.items():
            missing = _gaps(boot.seqs)
            if sum(last - first + 1 for first, last in missing) > boot.never_written:
                self.broken.append(f"boot {name}: the verdicts {_listed(missing)} are missing")
            if not boot.complete:
                self.remarks.append(f"boot {name} has no end yet: some of its frames may still be judged")
                continue
            without = {camera: gaps for camera, frames in boot.frames.items() if (gaps := _gaps(frames))}
            if (
                sum(last - first + 1 for gaps in without.values() for first, last in gaps)
                > boot.never_written
            ):
                self.broken += [
                    f"boot {name}: the frames {_listed(gaps)} of camera {camera} have no verdict"
                    for camera, gaps in without.items()
                ]


def _misfit(row: Row) -> str | None:
    """Say what is impossible about a row, apart from its place in the chain; None if nothing is."""
    types = (
        int,
        str,
        (str, type(None)),
        (int, type(None)),
        (str, type(None)),
        (int, type(None)),
        str,
        bytes,
        bytes,
    )
    for name, value, kind in zip(Row._fields, row, types, strict=True):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            return f"{name} holds {type(value).__name__}"
    if len(row.previous) != len(NOTHING):
        return f"previous has {len(row.previous)} bytes"
    try:
        content = json.loads(row.payload)
    except (ValueError, RecursionError):
        return "its payload is not JSON"
    if not isinstance(content, dict):
        return "its payload is not an object"
    expected = ("boot", "seq", "camera", "frame") if row.kind == VERDICT else ("boot",)
    for name in expected:
        value = getattr(row, name)
        if content.get(name) != value or (row.kind == VERDICT and value is None):
            other = shown(content.get(name)) or "a list or object"
            return f"{name} is {value!r} in its column and {other} in its payload"
    return None


def _gaps(ranges: Ranges) -> list[tuple[int, int]]:
    last = max((last for _, last in ranges), default=0)
    return ranges.gaps(1, last)


def _listed(spans: list[tuple[int, int]]) -> str:
    listed = [f"{first}" if first == last else f"{first} to {last}" for first, last in spans[:10]]
    return ", ".join(listed) + (f" and {len(spans) - 10} more gaps" if len(spans) > 10 else "")


def _shortened(lines: list[str]) -> Iterator[str]:
    yield from lines[:_MOST_TOLD]
    if len(lines) > _MOST_TOLD:
        yield f"and {len(lines) - _MOST_TOLD} more"
