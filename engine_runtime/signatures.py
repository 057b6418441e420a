"""Signatures of engine files: Ed25519 over the whole file, in a file of its own beside it.

They are those of ``openssl pkeyutl -sign -rawin``, so that a private key never has to be where engines run.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import EngineRefused, InputError, refused_by_system

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SUFFIX = ".sig"
_EXPECTED = "expected an Ed25519 public key in PEM, as `openssl pkey -pubout` writes it"
_KEY_LIMIT = 10_000
"""Bytes; a public key in PEM has 113."""


class TrustedKeys:
    """Public keys: one of them must have signed an engine before anything of it is read.

    Args:
        files: one Ed25519 public key in PEM each, as ``openssl pkey -pubout`` writes it.

    Raises:
        InputError: a file cannot be read or holds no such key, or the package that checks signatures is
            missing.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._keys = [_public_key(file) for file in self.files]

    @property
    def fingerprint(self) -> tuple[bytes, ...]:
        """What makes two sets of keys the same, whatever their files are called."""
        return tuple(key.public_bytes_raw() for key in self._keys)

    def check(self, path: Path, content: bytes) -> None:
        """Let an engine pass.

        Args:
            path: the engine's file; its signature has the same name and ``SUFFIX``.
            content: all its bytes.

        Raises:
            EngineRefused: there is no signature, or none of the keys made it for these bytes.
        """
        from cryptography.exceptions import InvalidSignature

        beside = path.with_name(path.name + SUFFIX)
        try:
            with beside.open("rb") as file:
                signature = file.read(1000)  # it has 64
        except OSError as error:
            raise EngineRefused(
                f"{path}: of unknown origin: trusted_keys wants its signature in {beside}, which cannot be"
                f" read: {error.strerror}"
            ) from error
        for key in self._keys:
            try:
                key.verify(signature, content)
            except InvalidSignature:
                continue
            return
        names = ", ".join(str(file) for file in self.files)
        raise EngineRefused(f"{path}: of unknown origin: {beside} is not its signature by {names}")


def _public_key(file: Path) -> "Ed25519PublicKey":
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise InputError(
            "trusted_keys: checking signatures needs the package cryptography: pip install 'inspectd[signed]'"
        ) from error
    try:
        with file.open("rb") as opened:
            content = opened.read(_KEY_LIMIT)
    except OSError as error:
        raise refused_by_system(f"{file}: trusted_keys: cannot be read: {error.strerror}", error) from error
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{file}: trusted_keys: {_EXPECTED}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{file}: trusted_keys: found a key of another kind, {_EXPECTED}")
    return key
