import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from foundation.files import sha256


def digest(root: Path, files: Sequence[Path]) -> str:
    """Give the SHA-256 over the names within ``root`` and contents of files, in the order of their paths."""
    whole = hashlib.sha256()
    for file in sorted(files):  # the order and the form that calibrate computes too, to recognise them
        whole.update(f"{Path(os.path.relpath(file, root)).as_posix()}\n".encode())
        whole.update(bytes.fromhex(sha256(file)))
    return whole.hexdigest()
