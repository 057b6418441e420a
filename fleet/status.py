"""How a running command fares: a file that it replaces every second, and that ``status`` reads."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from foundation.errors import InputError, printable, refused_by_system

_STALE_S: Final = 10.0
_MOST_BYTES: Final = 10_000_000
_OF_PICTURES: Final = ("stored", "missing")


class StatusFile:
    """Writes it; a disk that takes nothing is no reason to stop."""

    def __init__(self, state: Path, command: str) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be made or written.
        """
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused_by_system(f"state: {state} cannot be made: {error.strerror}", error) from error
        if not os.access(state, os.W_OK | os.X_OK):
            raise InputError(f"state: {state} cannot be written; expected a folder of its own")
        self._file = status_file(state, command)
        self._since = _now()

    def write(self, content: dict[str, Any]) -> None:
        """Replace it. Not synced: it tells of now."""
        text = json.dumps({"since": self._since, "written_at": _now()} | content, indent=1)
        temporary = self._file.with_suffix(".new")
        try:
            temporary.write_text(text + "\n")
            temporary.replace(self._file)
        except OSError:
            return


def status_file(state: Path, command: str) -> Path:
    """Name it."""
    return state / f"{command}.json"


def read_status(state: Path, command: str) -> dict[str, Any] | None:
    """Read it; None when the command has never run here.

    Raises:
        InputError: it cannot be read, or is not ours.
    """
    file = status_file(state, command)
    try:
        with file.open("rb") as opened:
            content = json.loads(opened.read(_MOST_BYTES))
        age_s = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    except ValueError as error:
        raise InputError(f"{file}: not what inspectd-fleet wrote: {error}") from error
    if not isinstance(content, dict) or "state" not in content:
        raise InputError(f"{file}: not what inspectd-fleet wrote")
    if age_s > _STALE_S:
        content |= {"state": "not running", "error": f"it last wrote {file} {age_s:.0f} s ago"}
    return content


def print_status(state: Path) -> int:
    """Print how the commands fare that have run here; give the exit code: 1 where something is wrong.

    Raises:
        InputError: a file is not ours, or none of the commands has ever run here.
    """
    found = {command: read_status(state, command) for command in ("forward", "lake", "pictures")}
    known = {command: content for command, content in found.items() if content is not None}
    if not known:
        raise InputError(f"{state}: no command has run with this config on this machine")
    for command, content in known.items():
        print(" ".join([f"{command}: {content['state']}", *_rest(content)]))
        for line, health in content.get("lines", {}).items():
            print("  " + " ".join([f"{line}: {health['state']}", *_rest(health)]))
    return 0 if all(content["state"] == "running" for content in known.values()) else 1


def _rest(content: dict[str, Any]) -> list[str]:
    shown = ("behind", "forwarded", "lost", "position", "waiting", "written", "twice", "malformed", "newest")
    counts = [f"{key} {content[key]}" for key in (*shown, *_OF_PICTURES) if content.get(key) not in (None, 0)]
    return [
        printable(text) for text in [*counts, *([f"({content['error']})"] if content.get("error") else [])]
    ]


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
