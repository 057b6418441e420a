"""``inspectd-fleet pictures``: brings what lines archive to an S3 store, each picture once, by its hash."""

import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from fleet.config import Fleet, Line
from fleet.service import service
from fleet.status import StatusFile
from fleet.store import Store, StoreFailed
from foundation.errors import InputError, Unavailable, refused_by_system
from foundation.files import write_whole
from verdicts import MalformedMessage, Verdict
from verdicts.verdict import decode_verdict

COMMAND: Final = "pictures"
_AT_ONCE: Final = 200
_TICK_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_WRITTEN_S: Final = 60.0
"""A picture that is not there so long after its capture does not come any more."""
_SETTLED_S: Final = 1.0
"""A file that was changed since may still be written."""
_OVERLAY: Final = ".overlay.jpg"
_SUFFIXES: Final = {"frame": ".png", "overlay": ".jpg"}
_log = logging.getLogger(__name__)


def check(fleet: Fleet) -> int:
    """Check config, journals and packages, and that the store may be written; give the exit code.

    Raises:
        InputError: something is wrong; ``Unavailable`` while the store cannot be reached.
    """
    store, _ = Store(fleet), _following(fleet)
    try:
        store.try_out()
    except StoreFailed as error:
        raise Unavailable(f"{fleet.file}: pictures: {error}") from error
    print(f"{fleet.file}: in order: lines {', '.join(line.name for line in fleet.lines)}, store {store.name}")
    return 0


def pictures(fleet: Fleet) -> int:
    """Go on until SIGTERM or Ctrl-C; give the exit code.

    Raises:
        InputError: a file is of no use, a package is missing.
    """
    store, lines = Store(fleet), _following(fleet)
    positions = _Positions(fleet.state / "pictures.positions.json")
    with service(StatusFile(fleet.state, COMMAND)) as running:
        running.ready(
            f"{fleet.plant}: pictures of {', '.join(line.name for line in fleet.lines)} to {store.name}"
        )
        error: str | None = None
        pause_s, told_s = _TICK_S, 0.0
        while not running.ending.is_set():
            moved = False
            try:
                for line in lines:
                    moved |= line.follow(store, positions)
                error, pause_s = None, _TICK_S
            except (StoreFailed, JournalFailed, InputError) as failure:
                if str(failure) != error:
                    _log.warning("%s; trying again", failure)
                error, pause_s = str(failure), min(2 * pause_s, _LONGEST_PAUSE_S)
            if time.monotonic() >= told_s + 1 or error is not None:
                told_s = time.monotonic()
                state = "running" if error is None else "degraded"
                content: dict[str, Any] = {
                    "state": state,
                    "error": error,
                    "store": store.name,
                    "lines": {line.name: line.content() for line in lines},
                }
                running.tell(content, f"{state}, {sum(line.stored for line in lines)} verdicts with pictures")
            if not moved:
                running.ending.wait(pause_s)
    sys.stdout.flush()
    return 0


def fetch(fleet: Fleet, line: str, verdict: str, out: Path) -> int:
    """Write the pictures of a verdict into a folder; give the exit code.

    Args:
        fleet: the config.
        line: its name.
        verdict: BOOT:SEQ, as ``report part`` shows them.
        out: existing folder.

    Raises:
        InputError: it has none, or one was altered; ``Unavailable`` while the store cannot be reached.
    """
    store, (boot, _, seq) = Store(fleet), verdict.partition(":")
    try:
        found = store.pictures_of(f"{fleet.plant}/{line}/{boot}/{seq}")
        if not found:
            raise InputError(f"{store.name}: has no pictures of verdict {verdict} of {fleet.plant}, {line}")
        for what, name in sorted(found.items()):
            file = out / f"{line}-{boot}-{seq}-{what}{Path(name).suffix}"
            content = store.get(name)
            write_whole(file, content)
            print(file)
    except StoreFailed as error:
        raise Unavailable(str(error)) from error
    return 0


class _Positions:
    """Up to which row of its journal each line's pictures are in the store."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rows: dict[str, int] = {}
        try:
            found = json.loads(file.read_bytes())
            self._rows = {str(line): int(row) for line, row in found.items()}
        except FileNotFoundError:
            return
        except (ValueError, TypeError, AttributeError, OSError):
            _log.warning("%s: damaged; all pictures are looked at again, and none is stored twice", file)

    def of(self, line: str) -> int:
        return self._rows.get(line, 0)

    def reached(self, line: str, row: int) -> None:
        self._rows[line] = row
        write_whole(self._file, json.dumps(self._rows).encode())


class _Followed:
    """One line's journal, and the archive that its verdicts name."""

    def __init__(self, plant: str, line: Line) -> None:
        assert line.journal is not None
        self.name, self.stored, self.missing = line.name, 0, 0
        self._plant, self._journal = plant, line.journal
        self._reader: JournalReader | None = None

    def content(self) -> dict[str, Any]:
        """Tell how it fares, for the status file."""
        return {"state": "running", "stored": self.stored, "missing": self.missing}

    def follow(self, store: Store, positions: _Positions) -> bool:
        """Bring the pictures of the next verdicts to the store; whether there was something to do.

        Raises:
            StoreFailed, JournalFailed, InputError: it is to be tried again later.
        """
        if self._reader is None:
            self._reader = JournalReader(self._journal)
        row = positions.of(self.name)
        if row > self._reader.last_row():  # a new journal
            row = 0
        reached = row
        try:
            for number, payload in self._reader.after(row, _AT_ONCE):
                if not self._bring(store, payload):
                    break
                reached = number
        except JournalFailed:
            self._reader.close()
            self._reader = None
            raise
        finally:
            if reached != row:
                positions.reached(self.name, reached)
        return reached != row

    def _bring(self, store: Store, payload: bytes) -> bool:
        """Store the pictures of one verdict; False while they are still being written."""
        try:
            verdict = decode_verdict(payload)
        except MalformedMessage:
            return True  # of another version
        if verdict.archive is None:
            return True
        overlay = Path(verdict.archive)
        frame = overlay.with_name(overlay.name.removesuffix(_OVERLAY) + ".png")
        files = {"frame": frame, "overlay": overlay}
        is_young = _age_s(verdict) < _WRITTEN_S
        if any(_is_being_written(file) or (is_young and not file.exists()) for file in files.values()):
            return False
        contents = {what: _content(file) for what, file in files.items()}
        found = {what: content for what, content in contents.items() if content is not None}
        if not found:
            self.missing += 1  # the archive has made room since
            return True
        names = {what: store.put(content, _SUFFIXES[what]) for what, content in found.items()}
        store.note(f"{self._plant}/{self.name}/{verdict.boot}/{verdict.seq}", names)
        self.stored += 1
        return True


def _is_being_written(file: Path) -> bool:
    try:
        return 0 <= time.time() - file.stat().st_mtime < _SETTLED_S
    except OSError:
        return False


def _content(file: Path) -> bytes | None:
    """Read a picture; None where the archive has removed it."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error


def _age_s(verdict: Verdict) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(verdict.captured_at)).total_seconds()


def _following(fleet: Fleet) -> list[_Followed]:
    if not fleet.lines:
        raise fleet.missing("lines", "the lines whose pictures are stored")
    for number, line in enumerate(fleet.lines):
        if line.journal is None:
            raise InputError(
                f"{fleet.file}: lines.{number}: expected config, of a line of this machine with a journal: "
                "pictures lie where the line runs"
            )
        if not os.access(line.journal.parent, os.R_OK | os.X_OK):
            raise InputError(f"{line.journal}: cannot be read; expected to run as a user who may")
    return [_Followed(fleet.plant, line) for line in fleet.lines]
