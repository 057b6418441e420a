"""Journals that were altered, through all that reads them: audit, reader, control address, and the writer.

Byte 0 chooses a row, byte 1 a column, byte 2 a type; the rest is the value. As column 255, bytes 0 and 2
choose where in the file the rest is written over what was there.
"""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from daemon.control.server import Control
from daemon.host.access import Access
from daemon.journal.audit import audit
from daemon.journal.chain import Row
from daemon.journal.journal import Journal, JournalFailed
from daemon.journal.reader import JournalReader
from daemon.journal.recovery import unjudged
from foundation.errors import InputError
from fuzzing.mutation import mutate_bytes, mutate_json
from fuzzing.samples import VERDICT
from fuzzing.target import Chance
from verdicts import ControlRefused, LineControl
from verdicts.checks import MalformedMessage
from verdicts.message import encode

_VERDICTS = 12
_FILE = 255


class Target:
    """No alteration of a row goes unnoticed, and none breaks a reader."""

    documented: tuple[type[Exception], ...] = ()
    longest = 2048
    words = (
        "verdict",
        "retention",
        "select",
        "start",
        "clock",
        "unjournaled",
        '"through":',
        '"removed":',
        '"boot":"aa"',
    )

    def __init__(self, folder: Path) -> None:
        self._sound, self._file, self._folder = folder / "sound", folder / "journal", folder
        self._access = Access()
        journal = Journal(self._sound, line="line3", keep_days=30, max_mb=10)
        journal.note("start", {"boot": "aa", "product": "flange", "sha256": {}})
        journal.note("select", {"boot": "aa", "product": "cover", "configured": "flange"})
        verdicts = [replace(VERDICT, seq=seq, frame=seq) for seq in range(1, _VERDICTS + 1)]
        journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
        removed = {"ff": {"seq": [[1, 2]], "frames": {"top": [[1, 2]]}}}
        journal.note("retention", {"through": 0, "hash": "00" * 32, "removed": removed})
        journal.note("clock", {"set_by_s": -3.5})
        journal.note("unjournaled", {"boot": "bb", "first": 1, "last": 2})
        journal.note("stop", {"boot": "aa", "code": 0})
        self._head = journal.head
        journal.close()
        with closing(sqlite3.connect(self._sound)) as connection:
            self._rows = [
                Row(*row)
                for row in connection.execute(f"SELECT {', '.join(Row._fields)} FROM journal ORDER BY id")
            ]
        result = audit(self._sound, expected_head=self._head)
        assert result.intact, result.broken

    def seeds(self) -> list[bytes]:
        payload = Row._fields.index("payload")
        seeds = [bytes((row.id - 1, payload, 1)) + row.payload for row in self._rows]
        columns = [bytes((5, column, kind)) + b"7" for column in range(len(Row._fields)) for kind in range(4)]
        return [*seeds, *columns, bytes((10, _FILE, 20)) + b"\0\0\0\0"]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        head, value = bytearray(data[:3].ljust(3, b"\0")), data[3:]
        if chance.random() < 0.3:
            head[chance.randrange(3)] = chance.choice((*range(20), chance.randrange(256)))
        value = mutate_json(value, chance) if value[:1] == b"{" else mutate_bytes(value, chance)
        return bytes(head) + value

    def run(self, data: bytes) -> None:
        for suffix in ("-wal", "-shm", "-lock", "-subscribers"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._sound, self._file)
        altered = self._alter(data)
        audited = _tried(lambda: audit(self._file, expected_head=self._head).intact)
        assert not (altered and audited), "an altered row went unnoticed"
        _tried(self._read)
        _tried(self._ask)
        _tried(self._go_on)

    def _alter(self, data: bytes) -> bool:
        """Write into the file; whether that makes a row another one."""
        (at, column, kind), value = data[:3].ljust(3, b"\0"), data[3:]
        if column == _FILE:
            with self._file.open("r+b") as file:
                file.seek((at * 256 + kind) * 2 % self._file.stat().st_size)
                file.write(value)
            return False  # what SQLite does not use may change
        row = self._rows[at % len(self._rows)]
        name = Row._fields[column % len(Row._fields)]
        new = (value.decode(errors="replace"), value, int.from_bytes(value[:7], "big"), None)[kind % 4]
        try:
            with closing(sqlite3.connect(self._file, isolation_level=None)) as connection:
                connection.execute(f"UPDATE journal SET {name} = ? WHERE id = ?", (new, row.id))
                found = connection.execute(
                    f"SELECT {', '.join(Row._fields)} FROM journal ORDER BY id"
                ).fetchall()
        except sqlite3.Error:
            return False  # SQLite itself refuses it
        return found != self._rows

    def _read(self) -> None:
        with JournalReader(self._file) as reader:
            for boot in reader.boots():
                reader.last_seq(boot)
                unjudged(reader, boot, "top", 20)
            reader.last_event("select")
            list(reader.since(datetime(2026, 1, 1, tzinfo=UTC)))
            list(reader.verdicts("aa", 1, 100))

    def _ask(self) -> None:
        address = f"ipc://{self._folder}/control"
        control = Control(address, self._file, commands=lambda name, arguments: Future(), access=self._access)
        control.start()
        try:
            with LineControl(address, timeout_s=5) as client:
                with suppress(ControlRefused, MalformedMessage):
                    list(client.replay("aa", 1, 100))
                with suppress(ControlRefused, MalformedMessage):
                    list(client.replay_since(datetime(2026, 1, 1, tzinfo=UTC)))
        finally:
            control.close()

    def _go_on(self) -> None:
        journal = Journal(self._file, line="line3", keep_days=0.0001, max_mb=1)
        try:
            verdicts = [replace(VERDICT, seq=seq, frame=seq, boot="cc") for seq in range(1, 400)]
            journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
        finally:
            journal.close()


def _tried(read: Callable[[], object]) -> object:
    """Do what may be refused; None when it is."""
    try:
        return read()
    except (InputError, JournalFailed):
        return None
