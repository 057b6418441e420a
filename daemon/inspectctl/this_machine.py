"""The lines that run on this machine, found among its processes."""

import os
from pathlib import Path
from typing import Final

from foundation.errors import InputError

_PROCESSES: Final = Path("/proc")


def only_line() -> Path:
    """Give the config of the one line that runs on this machine.

    Raises:
        InputError: there is none, or there are several.
    """
    found = running_configs()
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError("which line: found none that runs on this machine, expected --config")
    listed = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    raise InputError(f"which line: found {len(found)} that run on this machine ({listed}), expected --config")


def running_configs(processes: Path = _PROCESSES) -> list[Path]:
    """List the configs of the daemons that run, sorted."""
    configs = {
        config
        for entry in processes.iterdir()
        if entry.name.isdigit() and (config := _config_of(entry)) is not None
    }
    return sorted(configs)


def _config_of(process: Path) -> Path | None:
    """Give the config that a process was started with; None when it is not a running daemon."""
    try:
        words = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
        # A script is started as "python /path/inspectd --config FILE".
        names = [Path(word).name for word in words[:2]]
        if "inspectd" not in names or "--check" in words:
            return None
        options = words[names.index("inspectd") + 1 :]
        for index, word in enumerate(options):
            name, equals, value = word.partition("=")
            if name == "--config":
                path = Path(value if equals else options[index + 1])
                if path.is_absolute():
                    return path  # where another user's process stands may not be read
                return Path(os.path.normpath((process / "cwd").readlink() / path))
    except (OSError, IndexError):  # it has ended, or is not ours to look into
        return None
    return None
