"""What people said: labels, users and changes, each row with the hash of the one before it.

Nothing is ever removed or altered in the file; what holds now is what its rows, read from the first to the
last, add up to.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from dashboard.database import SQLITE_ERRORS, DatabaseFailed, open_database, refused, why
from foundation.errors import InputError

_APPLICATION_ID: Final = 0x696E736C  # "insl"
_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, user TEXT NOT NULL, "
    "what TEXT NOT NULL, line TEXT, content TEXT NOT NULL, previous BLOB NOT NULL)",
)
NOTHING: Final = bytes(32)
"""What the first row holds instead of a hash."""
_SECRET: Final = frozenset({"user"})
"""Kinds of rows whose content is for nobody to read: it holds what a password is checked against."""


class Entry(NamedTuple):
    """One row, in the order of its columns.

    Attributes:
        id: counts from 1 without gaps.
        at: microseconds since 1970.
        user: who did it.
        what: kind of the row.
        line: that it is about; None for a user.
        content: JSON.
        previous: SHA-256 of the row before it.
    """

    id: int
    at: int
    user: str
    what: str
    line: str | None
    content: str
    previous: bytes

    def hash(self) -> bytes:
        """Give the SHA-256 over a JSON array of its columns without blanks, the last in hexadecimal."""
        columns = [*self[:-1], self.previous.hex()]
        return hashlib.sha256(json.dumps(columns, ensure_ascii=True, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one person says of one verdict."""

    user: str
    label: str
    kind: str | None
    at_us: int
    note: str


Key = tuple[str, str, int]
"""Line, boot, seq."""


class Labels:
    """The file of labels, and what it adds up to. May be used by several threads.

    Attributes:
        damaged: what is wrong with the chain; None while it is sound.
    """

    def __init__(self, file: Path) -> None:
        """Open it, or create it, and read it.

        Raises:
            InputError: it is damaged or something else; ``Unavailable`` when the disk is full.
        """
        self.file = file
        self.damaged: str | None = None
        self._turn = threading.RLock()
        self._opinions: dict[Key, dict[str, Opinion]] = {}
        self._users: dict[str, dict[str, Any]] = {}
        self._last: dict[tuple[str, str], list[Entry]] = {}
        """Of each line and user: labellings that can be undone, the newest last."""
        self._head, self._next = NOTHING, 1
        self._connection = open_database(file, _APPLICATION_ID, _VERSION, _TABLES)
        try:
            self._connection.execute("PRAGMA synchronous = FULL")
            self._catch_up()
        except SQLITE_ERRORS as error:
            self._connection.close()
            raise refused(file, error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._connection.close()
            raise InputError(f"{file}: is damaged: row {self._next}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()

    def add(self, user: str, what: str, line: str | None, content: Mapping[str, Any]) -> Entry:
        """Write a row; it is on the disk when this returns.

        Raises:
            DatabaseFailed: the disk is full or fails; nothing is written.
        """
        with self._turn:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._catch_up()
                now_us, text = time.time_ns() // 1000, json.dumps(content)
                entry = Entry(self._next, now_us, user, what, line, text, self._head)
                self._connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", entry)
                self._connection.execute("COMMIT")
            except SQLITE_ERRORS as error:
                self._roll_back()
                raise DatabaseFailed(f"{self.file}: {why(error)}") from error
            self._head, self._next = entry.hash(), entry.id + 1
            self._apply(entry)
            return entry

    def label(
        self,
        user: str,
        line: str,
        verdicts: Iterable[tuple[str, int]],
        label: str | None,
        *,
        kind: str | None = None,
        note: str = "",
    ) -> None:
        """Note what somebody says of verdicts; in the place of what the same person said before.

        Args:
            user: who says it.
            line: of the verdicts.
            verdicts: boot and seq.
            label: "defect", "false_reject", "unsure", or None to say nothing any more.
            kind: of the defect.
            note: in the person's words.

        Raises:
            DatabaseFailed: nothing is written.
        """
        with self._turn:
            before = []
            for boot, seq in verdicts:
                known = self._opinions.get((line, boot, seq), {}).get(user)
                was = None if known is None else [known.label, known.kind, known.at_us, known.note]
                before.append([boot, seq, was])
            content = {"label": label, "kind": kind, "note": note, "verdicts": before}
            self.add(user, "label", line, content)

    def undo(self, user: str, line: str) -> list[tuple[str, int]]:
        """Take a person's last labelling of a line back.

        Returns:
            The verdicts that it was about; empty when there is nothing to take back.

        Raises:
            DatabaseFailed: nothing is written.
        """
        with self._turn:
            done = self._last.get((line, user))
            if not done:
                return []
            content = json.loads(done[-1].content)
            self.add(user, "undo", line, {"id": done[-1].id, "verdicts": content["verdicts"]})
            return [(boot, seq) for boot, seq, _ in content["verdicts"]]

    def undoable(self, user: str, line: str) -> int:
        """Count the labellings that a person can take back."""
        with self._turn:
            return len(self._last.get((line, user), ()))

    def opinions(self, line: str, boot: str, seq: int) -> list[Opinion]:
        """Give what people say of a verdict, the oldest first."""
        with self._turn:
            return sorted(
                self._opinions.get((line, boot, seq), {}).values(), key=lambda opinion: opinion.at_us
            )

    def summary(self, line: str, boot: str, seq: int) -> tuple[str, str | None, int]:
        """Give the label, the kind of defect and the number of opinions of a verdict."""
        return agreed(self.opinions(line, boot, seq))

    def labelled(self, line: str) -> list[tuple[str, int]]:
        """List the verdicts of a line of which somebody says something."""
        with self._turn:
            return [(boot, seq) for of, boot, seq in self._opinions if of == line]

    def by_user(self, line: str) -> dict[str, int]:
        """Count the opinions of each person on verdicts of a line."""
        counted: dict[str, int] = {}
        with self._turn:
            for key, said in self._opinions.items():
                for user in said if key[0] == line else ():
                    counted[user] = counted.get(user, 0) + 1
        return counted

    def kinds(self, line: str | None = None) -> dict[str, int]:
        """Count the kinds of defects that people named."""
        counted: dict[str, int] = {}
        with self._turn:
            for key, said in self._opinions.items():
                if line is None or key[0] == line:
                    for kind in {opinion.kind for opinion in said.values() if opinion.kind}:
                        counted[kind] = counted.get(kind, 0) + 1
        return counted

    def users(self) -> dict[str, dict[str, Any]]:
        """Give each user's role, secret and since when; also of those whom another process added."""
        with self._turn:
            try:
                self._catch_up()
            except SQLITE_ERRORS as error:
                raise DatabaseFailed(f"{self.file}: {why(error)}") from error
            return {name: dict(user) for name, user in self._users.items()}

    def entries(
        self,
        *,
        line: str | None = None,
        what: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> list[Entry]:
        """Give rows, the newest first.

        Raises:
            DatabaseFailed: the file cannot be read.
        """
        query, values = "SELECT * FROM entries WHERE id < ?", [before or self._next]
        if line is not None:
            query, values = f"{query} AND line = ?", [*values, line]  # type: ignore[list-item]
        if what:
            query, values = f"{query} AND what IN ({', '.join('?' * len(what))})", [*values, *what]  # type: ignore[list-item]
        with self._turn:
            try:
                rows = self._connection.execute(f"{query} ORDER BY id DESC LIMIT ?", [*values, limit])
                return [Entry(*row) for row in rows.fetchall()]
            except SQLITE_ERRORS as error:
                raise DatabaseFailed(f"{self.file}: {why(error)}") from error

    def audit(self) -> str | None:
        """Read the chain again; say which row was altered, or None."""
        head, due = NOTHING, 1
        with self._turn:
            self._catch_up()
            for entry in self._entries():
                if entry.id != due or entry.previous != head:
                    return f"row {min(entry.id, due)} was altered or removed"
                head, due = entry.hash(), due + 1
            if head != self._head:
                return f"rows from {due} were removed"
        return None

    def _entries(self, after: int = 0) -> Iterable[Entry]:
        query = "SELECT * FROM entries WHERE id > ? ORDER BY id"
        rows: sqlite3.Cursor = self._connection.execute(query, (after,))
        return (Entry(*row) for row in rows)

    def _catch_up(self) -> None:
        """Take in what another process wrote: ``inspectd-dashboard --user`` beside the one that serves."""
        for entry in list(self._entries(self._next - 1)):
            self._check(entry)
            self._apply(entry)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with suppress(*SQLITE_ERRORS):
                self._connection.execute("ROLLBACK")

    def _check(self, entry: Entry) -> None:
        if self.damaged is None and (entry.id != self._next or entry.previous != self._head):
            self.damaged = f"{self.file}: row {min(entry.id, self._next)} was altered or removed"
        self._head, self._next = entry.hash(), entry.id + 1

    def _apply(self, entry: Entry) -> None:
        content = json.loads(entry.content)
        if entry.what == "label" and entry.line is not None:
            said = None
            if content["label"] is not None:
                said = Opinion(entry.user, content["label"], content["kind"], entry.at, content["note"])
            for boot, seq, _ in content["verdicts"]:
                self._say((entry.line, boot, seq), entry.user, said)
            self._last.setdefault((entry.line, entry.user), []).append(entry)
        elif entry.what == "undo" and entry.line is not None:
            for boot, seq, was in content["verdicts"]:
                said = None if was is None else Opinion(entry.user, was[0], was[1], was[2], was[3])
                self._say((entry.line, boot, seq), entry.user, said)
            done = self._last.get((entry.line, entry.user), [])
            if done and done[-1].id == content["id"]:
                done.pop()
        elif entry.what == "user":
            if content.get("role") is None:
                self._users.pop(content["name"], None)
            else:
                self._users[content["name"]] = {**content, "since_us": entry.at}

    def _say(self, key: Key, user: str, said: Opinion | None) -> None:
        opinions = self._opinions.setdefault(key, {})
        if said is None:
            opinions.pop(user, None)
        else:
            opinions[user] = said
        if not opinions:
            del self._opinions[key]


def agreed(opinions: Collection[Opinion]) -> tuple[str, str | None, int]:
    """Make one label of what people say: theirs if they agree, "disputed" if not.

    Somebody who is unsure does not contradict the others.

    Returns:
        One of ``records.LABELS``, the kind that was named last, and how many said something.
    """
    sure = {opinion.label for opinion in opinions if opinion.label != "unsure"}
    label = "none" if not opinions else "unsure" if not sure else "disputed" if len(sure) > 1 else min(sure)
    kinds = [opinion.kind for opinion in opinions if opinion.kind and opinion.label == "defect"]
    return label, kinds[-1] if kinds else None, len(opinions)


def readable(entry: Entry) -> dict[str, Any]:
    """Give a row as people may read it."""
    content = json.loads(entry.content)
    if entry.what in _SECRET:
        content = {key: content.get(key) for key in ("name", "role")}
    elif entry.what in {"label", "undo"}:
        verdicts = content.pop("verdicts")
        content["ids"] = [f"{boot}-{seq}" for boot, seq, _ in verdicts[:20]]
        content["number"] = len(verdicts)
    return {
        "id": entry.id,
        "at": entry.at / 1000,
        "user": entry.user,
        "what": entry.what,
        "line": entry.line,
        "content": content,
    }
