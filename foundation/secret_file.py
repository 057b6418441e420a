"""Passwords and keys, which never stand in the config itself."""

import os
import stat
from pathlib import Path
from typing import Final

from foundation.errors import InputError, refused_by_system

_CREDENTIAL: Final = "credential:"
_MOST_BYTES: Final = 4096


def read_secret(config: Path, key: str, named: str) -> str:
    """Read a secret from its file.

    Args:
        config: the file that names it; a relative path counts from its folder.
        key: under which it is named there.
        named: path of a file, or ``credential:NAME`` for one that systemd hands over.

    Returns:
        The file's first line, without the line break.

    Raises:
        InputError: it cannot be read, is empty, or others may read it.
    """
    path = _path_of(config, key, named)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise refused_by_system(f"{config}: {key}: {path} cannot be read: {error.strerror}", error) from error
    if mode & 0o007:
        raise InputError(
            f"{config}: {key}: {path} has mode {mode:04o}; expected 0600 or 0640: it is a secret"
        )
    text = content.decode(errors="replace").splitlines()
    if len(content) > _MOST_BYTES or not text or not text[0] or "\ufffd" in text[0] or "\0" in text[0]:
        raise InputError(f"{config}: {key}: {path} holds no secret; expected one line of text")
    return text[0]


def _path_of(config: Path, key: str, named: str) -> Path:
    if not named.startswith(_CREDENTIAL):
        return config.absolute().parent / named
    name = named.removeprefix(_CREDENTIAL)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not name or "/" in name or name in {".", ".."}:
        raise InputError(f"{config}: {key}: found {named}, expected credential:NAME without a folder")
    if folder is None:
        raise InputError(
            f"{config}: {key}: found {named}, but there is no $CREDENTIALS_DIRECTORY; "
            f"expected to run as a service with LoadCredential={name}:FILE"
        )
    return Path(folder) / name
