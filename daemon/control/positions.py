"""How far each acknowledging subscriber has come in the journal; kept over restarts and power cuts."""

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from foundation.errors import InputError, refused_by_system
from foundation.files import sync_folder, write_whole
from verdicts.checks import NAME

HashOf = Callable[[int], bytes | None]
"""Gives the SHA-256 of a row of the journal; None when the journal does not have that row."""

_VERSION: Final = 1
_MOST_BYTES: Final = 100_000
_MOST_NAMES: Final = 64
_BETWEEN_WRITES_S: Final = 1.0
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger("inspectd")


class Positions:
    """A small file beside the journal: name of a subscriber to the last row it has acknowledged.

    It is written at most once per second, as a whole. What a crash takes back is delivered a second time.

    The file holds the hash of each row, too. After a power cut the journal may end before a row that was
    acknowledged, and go on with other rows under the same numbers: the hash tells such a row from the one
    that the subscriber saw. Files of older versions have no hashes; their rows are known by number alone.
    """

    def __init__(self, file: Path) -> None:
        """Read the file, if there is one.

        Raises:
            InputError: it cannot be read or is not ours.
        """
        self._file = file
        self._rows, self._hashes = _read(file)
        self._changed = False
        self._failing = False
        self._due_s = 0.0

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> int:
        return self._rows[name]

    def __setitem__(self, name: str, row: int) -> None:
        if self._rows.get(name) == row:
            return
        self._rows[name] = row
        self._hashes.pop(name, None)  # of the row before; the next write looks the new one up
        self._changed = True

    def names(self) -> list[str]:
        """List the subscribers."""
        return list(self._rows)

    def agrees(self, name: str, hash_of: HashOf) -> bool:
        """Tell whether the journal holds the very row that a subscriber acknowledged last.

        A row that retention has removed cannot be compared, and agrees; so does one whose hash is not known.
        """
        known = self._hashes.get(name)
        found = None if known is None else hash_of(self._rows[name])
        return found is None or found.hex() == known

    def is_full(self) -> bool:
        """Tell whether no further name fits; invented names must not fill a disk."""
        return len(self._rows) >= _MOST_NAMES

    def forget(self, name: str) -> None:
        """Make room: the subscriber starts over if it comes again."""
        del self._rows[name]
        self._hashes.pop(name, None)
        self._changed = True

    def write(self, hash_of: HashOf, *, at_once: bool = False) -> None:
        """Write the file when something changed and the last time was a while ago.

        Args:
            hash_of: of the journal's rows.
            at_once: even if the last time was just now.

        Raises:
            Whatever ``hash_of`` raises; then the file is as it was.
        """
        if not self._changed or (time.monotonic() < self._due_s and not at_once):
            return
        for name, row in self._rows.items():
            if name not in self._hashes and (found := hash_of(row)) is not None:
                self._hashes[name] = found.hex()
        self._due_s = time.monotonic() + _BETWEEN_WRITES_S
        content = {"version": _VERSION, "acknowledged": self._rows, "sha256": self._hashes}
        try:
            write_whole(self._file, json.dumps(content, indent=1).encode() + b"\n", mode=0o640)
            sync_folder(self._file.parent)
        except (OSError, InputError) as error:
            if not self._failing:
                _log.warning("%s: cannot be written, verdicts will be delivered again: %s", self._file, error)
            self._failing = True
            return
        self._changed = self._failing = False


def _read(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    try:
        content: Any = json.loads(text)
        rows = content["acknowledged"]
        hashes = content.get("sha256", {})
        if content["version"] != _VERSION or not (
            all(NAME.fullmatch(name) and type(row) is int and row >= 0 for name, row in rows.items())
            and all(name in rows and _HASH.fullmatch(text) for name, text in hashes.items())
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file}: found no subscribers' positions of version {_VERSION}; "
            f"remove the file to let them begin with the newest verdict"
        ) from error
    return dict(rows), dict(hashes)
