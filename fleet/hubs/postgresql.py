"""A hub in PostgreSQL: one table of verdicts, for whoever has a database and wants no other server."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from fleet.config import PostgreSqlConfig
from fleet.hubs import Entry, HubFailed, Stored
from foundation.errors import InputError

_SCHEMA: Final = 1
_OLDEST: Final = 13
_LOCK: Final = 0x1A5BEC7D
"""Of the one who adds rows. Positions are given out under it, so that they become visible in their order:
whoever reads on after a position misses none that was given out before and committed later."""
_POLL_S: Final = 0.25
_TABLES: Final = """
CREATE TABLE inspectd_hub (
    schema integer NOT NULL,
    identity uuid NOT NULL DEFAULT gen_random_uuid(),
    single boolean PRIMARY KEY DEFAULT true CHECK (single)
);
INSERT INTO inspectd_hub (schema) VALUES (1);
CREATE TABLE inspectd_verdicts (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    plant text NOT NULL,
    line text NOT NULL,
    boot text NOT NULL,
    seq bigint NOT NULL,
    product text,
    verdict json NOT NULL,
    UNIQUE (plant, line, boot, seq)
);
"""
_ADD: Final = """
INSERT INTO inspectd_verdicts (plant, line, boot, seq, product, verdict)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::json[])
ON CONFLICT DO NOTHING
"""
_AFTER: Final = """
SELECT position, stored_at, plant, product, verdict::text FROM inspectd_verdicts
WHERE position > %s ORDER BY position LIMIT %s
"""
_FORGET: Final = """
DELETE FROM inspectd_verdicts WHERE position <= %s AND stored_at < now() - make_interval(secs => %s)
"""
_Connection = psycopg.Connection[tuple[Any, ...]]
_Result = TypeVar("_Result")


class PostgreSql:
    """One connection, which threads take in turn; see the seam ``Hub``."""

    def __init__(self, config: PostgreSqlConfig, password: str | None) -> None:
        """Prepare; ``connect`` connects.

        Args:
            config: the section.
            password: of the address's user; None without one.
        """
        self.name = config.address.partition("?")[0]
        self._config = config
        self._password = password
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._identity = ""

    def connect(self) -> None:
        """See the seam."""
        with self._lock:
            if self._connection is not None and not self._connection.broken:
                return
            self._leave()
            try:
                connection = self._connected()
                try:
                    self._refuse_unsynced(connection)
                    self._identity = self._made(connection)
                except BaseException:
                    connection.close()
                    raise
            except psycopg.Error as error:
                raise self._failed(error) from error
            self._connection = connection

    def last(self, plant: str, line: str) -> tuple[str, int] | None:
        """Give nothing: the table knows duplicates for as long as it keeps them."""
        return None

    def put(self, entries: Sequence[Entry]) -> None:
        """See the seam."""
        columns = (
            [entry.plant for entry in entries],
            [entry.line for entry in entries],
            [entry.boot for entry in entries],
            [entry.seq for entry in entries],
            [entry.product for entry in entries],
            [entry.payload.decode() for entry in entries],
        )

        def add(connection: _Connection) -> None:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                connection.execute(_ADD, columns)

        self._do(add)

    def identity(self) -> str:
        """See the seam."""
        return f"postgresql {self._identity}"

    def after(self, position: int, limit: int, wait_s: float) -> list[Stored]:
        """See the seam."""

        def ask(connection: _Connection) -> list[tuple[Any, ...]]:
            return connection.execute(_AFTER, (position, limit)).fetchall()

        until_s = time.monotonic() + wait_s
        while True:
            rows = self._do(ask)
            left_s = until_s - time.monotonic()
            if rows or left_s <= 0:
                return [
                    Stored(position, stored_at, plant, product, text.encode())
                    for position, stored_at, plant, product, text in rows
                ]
            time.sleep(min(_POLL_S, left_s))

    def may_forget(self, position: int) -> None:
        """See the seam."""
        self._do(lambda connection: connection.execute(_FORGET, (position, self._config.keep_days * 86_400)))

    def close(self) -> None:
        """See the seam."""
        with self._lock:
            self._leave()

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _do(self, work: Callable[[_Connection], _Result]) -> _Result:
        with self._lock:
            if self._connection is None:
                raise HubFailed(f"{self.name}: not connected")
            try:
                return work(self._connection)
            except psycopg.Error as error:
                self._leave()
                raise self._failed(error) from error

    def _connected(self) -> _Connection:
        milliseconds = int(self._config.timeout_s * 1000)
        return psycopg.connect(
            self._config.address,
            password=self._password,
            autocommit=True,
            application_name="inspectd-fleet",
            connect_timeout=max(2, int(self._config.timeout_s)),
            tcp_user_timeout=milliseconds,
            options=f"-c synchronous_commit=on -c statement_timeout={milliseconds} -c timezone=UTC",
        )

    def _refuse_unsynced(self, connection: _Connection) -> None:
        version = connection.info.server_version // 10_000
        if version < _OLDEST:
            raise InputError(f"{self.name}: found PostgreSQL {version}, expected {_OLDEST} or later")
        found = connection.execute("SHOW fsync").fetchone()
        if found is None or found[0] != "on":
            raise InputError(
                f"{self.name}: fsync: found off, expected on: a power cut would lose what was acknowledged"
            )

    def _made(self, connection: _Connection) -> str:
        """Make the tables if they are not there, and give the hub's identity."""
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            there = connection.execute("SELECT to_regclass('inspectd_hub')").fetchone()
            if there == (None,):
                connection.execute(_TABLES)
        try:
            found = connection.execute("SELECT schema, identity FROM inspectd_hub").fetchone()
        except errors.UndefinedColumn as error:
            raise InputError(
                f"{self.name}: table inspectd_hub: is not ours; name another database"
            ) from error
        if found is None or found[0] != _SCHEMA:
            raise InputError(
                f"{self.name}: table inspectd_hub: found schema {found and found[0]}, expected {_SCHEMA}"
            )
        return str(found[1])

    def _failed(self, error: psycopg.Error) -> HubFailed:
        said = error.diag.message_primary or str(error) or type(error).__name__
        return HubFailed(f"{self.name}: {said}")
