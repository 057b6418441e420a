import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import zmq

_MOST_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What a client needs to connect to a line that encrypts; keys are 40 characters of Z85.

    Attributes:
        public_key: the client's; the line's config names it.
        secret_key: the client's.
        server_key: the line's public key, by which the client knows that it speaks to its line.
    """

    public_key: str
    secret_key: str = field(repr=False)
    server_key: str

    @classmethod
    def read(cls, key_file: str | Path, server_key_file: str | Path) -> Self:
        """Read files as ``inspectctl keygen`` writes them.

        Args:
            key_file: the client's ``NAME.key_secret``.
            server_key_file: the line's ``NAME.key``.

        Raises:
            ValueError: a file is missing, no key file, or a secret that others may read.
        """
        public_key, secret_key = read_secret_key(Path(key_file))
        server_key, _ = _read_key_file(Path(server_key_file))
        return cls(public_key, secret_key, server_key)


def read_secret_key(path: Path) -> tuple[str, str]:
    """Read a file as ``inspectctl keygen`` writes it: its public and its secret key.

    Raises:
        ValueError: the file is missing, has no secret key, or others may read it or the group change it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & 0o027:
        raise ValueError(
            f"{path}: found mode {mode:04o}, expected 0600: only its owner may read a secret key"
        )
    public_key, secret_key = _read_key_file(path)
    if secret_key is None:
        raise ValueError(f"{path}: found a public key only, expected the file that ends in .key_secret")
    if zmq.curve_public(secret_key.encode()).decode() != public_key:
        raise ValueError(f"{path}: the public key in it does not belong to the secret key")
    return public_key, secret_key


def _read_key_file(path: Path) -> tuple[str, str | None]:
    from zmq.auth import load_certificate

    expected = "expected a key file of inspectctl keygen"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if size > _MOST_BYTES:
        raise ValueError(f"{path}: found {size} bytes, {expected}")
    try:
        public_key, secret_key = load_certificate(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or 'no such file'}") from error
    except ValueError as error:
        raise ValueError(f"{path}: found no public key, {expected}") from error
    for key in (public_key, secret_key):
        if key is not None and not is_key(key.decode(errors="replace")):
            raise ValueError(f"{path}: found {key!r}, expected 40 characters of Z85")
    return public_key.decode(), None if secret_key is None else secret_key.decode()


def is_key(text: str) -> bool:
    """Tell whether a text is a CURVE key: 32 bytes as 40 characters of Z85."""
    from zmq.utils import z85

    if len(text) != 40 or not set(text.encode()) <= set(z85.Z85CHARS):
        return False
    try:
        return len(z85.decode(text)) == 32
    except struct.error:  # five characters that are more than 32 bits
        return False
