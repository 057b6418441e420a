"""``inspectd-fleet lake``: takes what comes into the hub to the lake, each verdict once."""

import logging
import os
import sys
import time
from collections import defaultdict
from typing import Any, Final

from daemon.journal.ranges import Ranges
from fleet.config import Fleet
from fleet.delta import Lake, only_writer
from fleet.hubs import Hub, HubFailed
from fleet.hubs.open import open_hub, try_hub
from fleet.rows import Row, row_of, table_of
from fleet.service import Service, service
from fleet.status import StatusFile
from foundation.errors import InputError
from verdicts import MalformedMessage

COMMAND: Final = "lake"
_log = logging.getLogger(__name__)
_AT_ONCE: Final = 5000
_WAIT_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0


def check(fleet: Fleet) -> int:
    """Check config and packages, that the hub is there, and that the lake can be read; give the exit code.

    Raises:
        InputError: something is wrong; ``Unavailable`` while the hub cannot be reached.
    """
    hub = _needed(fleet)
    try_hub(fleet, hub)
    with only_writer(fleet.lake.folder):
        Lake(fleet.lake.folder)
    print(f"{fleet.file}: in order: hub {hub.name}, lake {fleet.lake.folder}")
    return 0


def lake(fleet: Fleet) -> int:
    """Write until SIGTERM or Ctrl-C; give the exit code.

    Raises:
        InputError: the lake is damaged or another process writes it, a package is missing.
    """
    hub = _needed(fleet)
    with only_writer(fleet.lake.folder), service(StatusFile(fleet.state, COMMAND)) as running:
        filling = Filling(fleet, hub, running)
        running.ready(f"{hub.name}: goes to {fleet.lake.folder}")
        filling.run()
        hub.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that waits for a hub does not end by itself


def _needed(fleet: Fleet) -> Hub:
    _ = fleet.lake
    return open_hub(fleet)


class Filling:
    """What is between the hub and the lake: rows that wait to be written together."""

    def __init__(self, fleet: Fleet, hub: Hub, running: Service) -> None:
        """Open the lake.

        Raises:
            InputError: it is damaged, or cannot be written.
        """
        self._config = fleet.lake
        self._hub = hub
        self._running = running
        self._lake = Lake(self._config.folder)
        self._there: defaultdict[tuple[str, str, str], Ranges] = defaultdict(Ranges)
        for plant, line, boot, first, last in self._lake.spans():
            key = (plant, line, boot)
            self._there[key] = Ranges([*self._there[key], (first, last)])
        self._waiting: list[Row] = []
        self._position = 0
        self._due_s = 0.0
        self._told_s = 0.0
        self._counts = {"written": 0, "twice": 0, "malformed": 0}
        self._error: str | None = None
        self._newest: str | None = None

    def run(self) -> None:
        """Go on until the service ends; what waits then is written."""
        pause_s = _FIRST_PAUSE_S
        while not self._running.ending.is_set():
            position = self._position
            try:
                self._hub.connect()
                self._take()
            except (HubFailed, InputError) as error:
                self._failed(str(error))
                self._running.ending.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if self._position > position:
                pause_s = _FIRST_PAUSE_S

    def _take(self) -> None:
        """Take from the hub and write until the end, or until something fails.

        What was taken and not written then is taken again: the lake says up to where it has everything.
        """
        hub = self._hub.identity()
        self._position = read = self._lake.position(hub)
        self._waiting.clear()
        self._due_s = time.monotonic() + self._config.every_s
        while True:
            ending = self._running.ending.is_set()
            if not ending:
                for stored in self._hub.after(read, _AT_ONCE, _WAIT_S):
                    read = stored.position
                    try:
                        self._waiting.append(row_of(stored))
                    except MalformedMessage as error:
                        self._counts["malformed"] += 1
                        _log.warning("%s: position %d: %s: left out", self._hub.name, stored.position, error)
            full = len(self._waiting) >= self._config.most_rows
            if read > self._position and (full or ending or time.monotonic() >= self._due_s):
                self._write(hub, read)
                self._hub.may_forget(read)
            if time.monotonic() >= self._due_s:
                self._due_s = time.monotonic() + self._config.every_s
            self._tell()
            if ending:
                return

    def _write(self, hub: str, position: int) -> None:
        """Write what waits, but for what is there already."""
        rows, seen = [], set()
        for row in self._waiting:
            verdict = row.verdict
            key = (row.plant, verdict.line, verdict.boot)
            if verdict.seq in self._there[key] or (key, verdict.seq) in seen:
                continue
            seen.add((key, verdict.seq))
            rows.append(row)
        self._lake.add(table_of(rows), hub, position)
        for row in rows:
            self._there[row.plant, row.verdict.line, row.verdict.boot].add(row.verdict.seq)
        self._counts["written"] += len(rows)
        self._counts["twice"] += len(self._waiting) - len(rows)
        if rows:
            self._newest = max(row.verdict.captured_at for row in rows)
        self._waiting.clear()
        self._position = position
        self._error = None

    def _failed(self, error: str) -> None:
        if error != self._error:
            _log.warning("%s; trying again", error)
        self._error = error
        self._tell()

    def _tell(self) -> None:
        if time.monotonic() < self._told_s + 1 and not self._running.ending.is_set():
            return
        self._told_s = time.monotonic()
        state = "running" if self._error is None else "degraded"
        content: dict[str, Any] = {
            "state": "stopped" if self._running.ending.is_set() else state,
            "error": self._error,
            "hub": self._hub.name,
            "position": self._position,
            "waiting": len(self._waiting),
            "newest": self._newest,
        }
        self._running.tell(content | self._counts, f"{state}, {self._counts['written']} written")
