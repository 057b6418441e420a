"""Digests by which images, and sets of images, are recognised."""

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.files import sha256
from pictures.frames import Frame

_PIXEL_BYTES = 8


def set_digest(root: Path, files: Iterable[Path], contents: Mapping[Path, str] | None = None) -> str:
    """Give the SHA-256 over the names within ``root`` and the contents of files, in the order of their paths.

    Args:
        root: against which the files are named.
        files: at least one.
        contents: the SHA-256 of each, where that is known already.

    Raises:
        InputError: a file cannot be read.
    """
    whole = hashlib.sha256()
    for file in sorted(files):
        name = Path(os.path.relpath(file, root)).as_posix()
        whole.update(os.fsencode(f"{name}\n"))
        whole.update(bytes.fromhex(sha256(file) if contents is None else contents[file]))
    return whole.hexdigest()


def pixel_digest(picture: Frame) -> int:
    """Give 64 bits that tell a picture by its pixels, whatever file it lies in.

    Args:
        picture: H×W×3 uint8, whole, as it was read.
    """
    digest = hashlib.blake2b(f"{picture.shape}".encode(), digest_size=_PIXEL_BYTES)
    digest.update(np.ascontiguousarray(picture).data)
    return int.from_bytes(digest.digest(), "little")


def pack_digests(digests: Iterable[int]) -> str:
    """Write pixel digests as text for a model's metadata: about 11 characters for each, sorted."""
    values: NDArray[np.uint64] = np.unique(np.array(list(digests), dtype="<u8"))
    return base64.b64encode(values.tobytes()).decode("ascii")


def unpack_digests(text: str) -> frozenset[int]:
    """Read what ``pack_digests`` wrote.

    Raises:
        ValueError: it is something else.
    """
    return frozenset(np.frombuffer(base64.b64decode(text, validate=True), dtype="<u8").tolist())
