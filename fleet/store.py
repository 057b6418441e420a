"""The store of pictures: any that speaks S3. Each is named by its SHA-256, so none is ever changed."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fleet.config import Fleet, PicturesConfig
from fleet.hubs.open import require
from foundation.errors import InputError, printable
from foundation.secret_file import read_secret

if TYPE_CHECKING:
    from obstore.store import S3Store

_TYPES: Final = {".png": "image/png", ".jpg": "image/jpeg"}


class StoreFailed(Exception):
    """The store cannot be reached, or refuses; ``str(error)`` is one line."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split()))[:500]


class Store:
    """Pictures by hash, and beside them which verdict has which.

    Every method raises ``StoreFailed``.
    """

    def __init__(self, fleet: Fleet) -> None:
        """Make it; nothing is asked yet.

        Raises:
            InputError: its package is missing, or a file with a key cannot be read.
        """
        require("obstore", "obstore")
        section = fleet.pictures
        self.name = f"{section.endpoint}/{section.bucket}"
        self._store = _opened(fleet, section)

    def put(self, content: bytes, suffix: str) -> str:
        """Store a picture, unless it is there; give its name."""
        name = f"pictures/{hashlib.sha256(content).hexdigest()}{suffix}"
        with self._told():
            try:
                self._store.head(name)
            except FileNotFoundError:
                self._store.put(name, content, attributes={"Content-Type": _TYPES[suffix]})
        return name

    def note(self, verdict: str, pictures: dict[str, str]) -> None:
        """Say which pictures a verdict has.

        Args:
            verdict: PLANT/LINE/BOOT/SEQ.
            pictures: what each shows → its name.
        """
        with self._told():
            self._store.put(f"verdicts/{verdict}.json", json.dumps(pictures).encode())

    def pictures_of(self, verdict: str) -> dict[str, str]:
        """Give what ``note`` was told; nothing where it was told nothing."""
        with self._told():
            try:
                found: Any = json.loads(bytes(self._store.get(f"verdicts/{verdict}.json").bytes()))
            except (FileNotFoundError, ValueError):
                return {}
        return {str(key): str(name) for key, name in found.items()} if isinstance(found, dict) else {}

    def get(self, name: str) -> bytes:
        """Give a picture.

        Raises:
            InputError: it is not what its name says.
        """
        with self._told():
            content = bytes(self._store.get(name).bytes())
        if hashlib.sha256(content).hexdigest() not in name:
            raise InputError(f"{self.name}: {name}: was altered: its SHA-256 is not its name")
        return content

    def try_out(self) -> None:
        """See that it is there and may be written."""
        self.note("check", {})

    @contextmanager
    def _told(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            # After the first line comes how it was tried.
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise StoreFailed(f"{self.name}: {said}") from error


def _opened(fleet: Fleet, section: PicturesConfig) -> "S3Store":
    from obstore.store import S3Store

    def secret(key: str, named: str) -> str:
        return read_secret(fleet.file, f"pictures.{key}", named)

    return S3Store(
        section.bucket,
        endpoint=section.endpoint,
        region=section.region,
        access_key_id=secret("access_key", section.access_key),
        secret_access_key=secret("secret_key", section.secret_key),
        client_options={"allow_http": True, "timeout": timedelta(seconds=section.timeout_s)},
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=section.timeout_s)},
    )
