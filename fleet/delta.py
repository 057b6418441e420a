"""The lake's table: Parquet files in folders, and Delta's log, which says what is in them and up to where.

Rows and the hub's position up to which they go are one entry of the log, so either both are there or neither.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from fleet.rows import PARTITION, SCHEMA
from foundation.errors import InputError, Unavailable, refused_by_system

_APPLICATION: Final = "inspectd-fleet lake"
_LOCK: Final = ".inspectd-fleet.lock"
_COMPACT_EVERY: Final = 60
"""Writes; between them each leaves a small file in each partition."""
_KEEP_OLD_FILES_H: Final = 24
"""For readers that are at it, and for a look back in time."""


class Lake:
    """The table, opened to add to it; one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open it, or make it when there is nothing yet.

        Raises:
            InputError: the folder cannot be written, holds something else, or files of it are damaged.
        """
        self._folder = folder
        self._writes = 0
        try:
            self._table = DeltaTable(folder)
        except TableNotFoundError:
            self._table = self._made()
        except (DeltaError, OSError) as error:
            raise InputError(f"{folder}: is no lake that can be read: {_one_line(error)}") from error
        found = [field.name for field in self._table.schema().fields]
        if found != SCHEMA.names or self._table.metadata().partition_columns != PARTITION:
            raise InputError(f"{folder}: is a Delta table of something else; expected a folder of its own")
        refuse_damaged(self._table, folder)

    def position(self, hub: str) -> int:
        """Give the position up to which the lake has what a hub held; 0 when it has nothing of it."""
        self._table.update_incremental()
        return self._table.transaction_version(f"{_APPLICATION}: {hub}") or 0

    def add(self, rows: pa.Table, hub: str, position: int) -> None:
        """Add rows, and that the lake has everything of a hub up to a position. It is on the disk then.

        Raises:
            InputError: the disk is full or fails; nothing was added.
        """
        transaction = Transaction(f"{_APPLICATION}: {hub}", position)
        try:
            write_deltalake(
                self._table,
                rows,
                mode="append",
                commit_properties=CommitProperties(app_transactions=[transaction]),
            )
            self._table.update_incremental()
            os.sync()
        except (DeltaError, OSError) as error:
            raise Unavailable(f"{self._folder}: cannot be written: {_one_line(error)}") from error
        self._writes += 1
        if self._writes % _COMPACT_EVERY == 0:
            self.compact()

    def compact(self) -> None:
        """Make one file of the many small ones of a day; remove those that nobody can be reading any more.

        Raises:
            InputError: the disk is full or fails; the lake is as it was.
        """
        try:
            self._table.optimize.compact()
            self._table.vacuum(
                retention_hours=_KEEP_OLD_FILES_H, enforce_retention_duration=False, dry_run=False
            )
            self._table.create_checkpoint()
            os.sync()
        except (DeltaError, OSError) as error:
            raise Unavailable(f"{self._folder}: cannot be written: {_one_line(error)}") from error

    def spans(self) -> list[tuple[str, str, str, int, int]]:
        """List what is there: plant, line, boot, and ranges of seq, ascending and apart from each other."""
        return spans(self._table)

    def _made(self) -> DeltaTable:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return DeltaTable.create(
                self._folder,
                schema=SCHEMA,
                partition_by=PARTITION,
                name="verdicts",
                description="verdicts of all lines, from inspectd-fleet lake",
                configuration={"delta.logRetentionDuration": "interval 7 days"},
            )
        except OSError as error:
            raise refused_by_system(
                f"{self._folder}: cannot be made: {error.strerror or _one_line(error)}", error
            ) from error
        except DeltaError as error:
            raise InputError(f"{self._folder}: cannot be made: {_one_line(error)}") from error


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from writing to the same lake.

    Raises:
        InputError: there is one already, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise refused_by_system(f"{folder}: cannot be written: {error.strerror}", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Unavailable(f"{folder}: another inspectd-fleet lake writes it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def open_to_read(folder: Path) -> DeltaTable:
    """Open a lake that may be written meanwhile.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        table = DeltaTable(folder)
    except TableNotFoundError as error:
        raise InputError(f"{folder}: there is no lake; expected the folder of inspectd-fleet lake") from error
    except (DeltaError, OSError) as error:
        raise InputError(f"{folder}: is no lake that can be read: {_one_line(error)}") from error
    if [field.name for field in table.schema().fields] != SCHEMA.names:
        raise InputError(
            f"{folder}: is a Delta table of something else; expected that of inspectd-fleet lake"
        )
    return table


def view(table: DeltaTable) -> duckdb.DuckDBPyConnection:
    """Give a database in which ``verdicts`` is the lake as it is now."""
    database = duckdb.connect(config={"threads": min(4, os.cpu_count() or 1)})
    database.execute("SET TimeZone = 'UTC'")
    files = [name.removeprefix("file://") for name in table.file_uris()]
    if files:
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
        source = f"read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false)"
        database.execute(f"CREATE VIEW verdicts AS SELECT * FROM {source}")
    else:
        nothing = SCHEMA.empty_table()
        database.register("nothing", nothing)
        database.execute("CREATE VIEW verdicts AS SELECT * FROM nothing")
    return database


def spans(table: DeltaTable) -> list[tuple[str, str, str, int, int]]:
    """List plant, line, boot and ranges of seq, ascending and apart from each other."""
    return view(table).execute(_SPANS).fetchall()


_SPANS: Final = """
WITH once AS (SELECT DISTINCT plant, line, boot, seq FROM verdicts),
numbered AS (
    SELECT *, seq - row_number() OVER (PARTITION BY plant, line, boot ORDER BY seq) AS span FROM once)
SELECT plant, line, boot, min(seq), max(seq) FROM numbered
GROUP BY plant, line, boot, span ORDER BY plant, line, boot, min(seq)
"""


def refuse_damaged(table: DeltaTable, folder: Path) -> None:
    """Compare the files with what the log says of them: a power cut or a person may have taken some.

    Raises:
        InputError: one is missing or has another size.
    """
    added = pa.table(table.get_add_actions())
    for name, size in zip(added["path"].to_pylist(), added["size_bytes"].to_pylist(), strict=True):
        file = folder / name
        found = file.stat().st_size if file.exists() else None
        if found != size:
            raise InputError(
                f"{file}: found {'nothing' if found is None else f'{found} bytes'}, expected {size} bytes; "
                "restore it from a backup, or move the lake away and have it written anew from the hub"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
