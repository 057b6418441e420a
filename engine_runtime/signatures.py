"""Signatures of engines and calibrations: Ed25519 over the whole file, in a file of its own beside it.

They are those of ``openssl pkeyutl -sign -rawin``, so that a private key never has to be where engines run.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import EngineRefused, InputError, refused_by_system
from foundation.files import write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUFFIX = ".sig"
_EXPECTED = "expected an Ed25519 public key in PEM, as `openssl pkey -pubout` writes it"
_KEY_LIMIT = 10_000
"""Bytes; a public key in PEM has 113."""


class TrustedKeys:
    """Public keys: one of them must have signed a file before anything of it is read.

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

    def check(self, path: Path, content: bytes, refused: Callable[[str], InputError] = EngineRefused) -> None:
        """Let an engine or a calibration pass.

        Args:
            path: its file; the signature has the same name and ``SUFFIX``.
            content: all its bytes.
            refused: makes the error.

        Raises:
            InputError: as ``refused`` makes it: there is no signature, or none of the keys made it for these
                bytes.
        """
        from cryptography.exceptions import InvalidSignature

        beside = signature_of(path)
        try:
            with beside.open("rb") as file:
                signature = file.read(1000)  # it has 64
        except OSError as error:
            raise refused(
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
        raise refused(f"{path}: of unknown origin: {beside} is not its signature by {names}")


class SigningKey:
    """A secret key that signs calibrations, of the same kind as those that sign engines.

    Args:
        file: an Ed25519 private key in PEM, as ``openssl genpkey -algorithm ed25519`` writes it.

    Raises:
        InputError: it cannot be read or holds no such key, or the package that signs is missing.
    """

    def __init__(self, file: Path) -> None:
        self._key = private_key(file)

    def sign(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Put the signature of a file's content beside it.

        Args:
            path: the file.
            content: all the bytes that it holds, or will.
            mode: of the signature's file.

        Raises:
            InputError: its folder cannot be written.
        """
        write_whole(signature_of(path), self._key.sign(content), mode)


def signature_of(path: Path) -> Path:
    """Name the file that holds the signature of a file."""
    return path.with_name(path.name + SUFFIX)


def private_key(file: Path) -> "Ed25519PrivateKey":
    """Read a secret key.

    Raises:
        InputError: see ``SigningKey``.
    """
    expected = "expected an Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it"
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise InputError("signing needs the package cryptography: pip install 'inspectd[signed]'") from error
    try:
        with file.open("rb") as opened:
            content = opened.read(_KEY_LIMIT)
    except OSError as error:
        raise refused_by_system(f"{file}: the signing key cannot be read: {error.strerror}", error) from error
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise InputError(f"{file}: the signing key has a password; {expected}, without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{file}: {expected}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{file}: found a key of another kind, {expected}")
    return key


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
