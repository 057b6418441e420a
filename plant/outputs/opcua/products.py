"""The line's products as OPC UA's recipes and configurations: what each is judged by."""

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from engine_runtime.engine_file import read_manifest
from foundation.errors import InputError
from lines.line_config import LineConfig

_log = logging.getLogger(__name__)
UNNAMED: Final = "default"
"""Id of the only configuration of a line that names no products."""

_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Configuration:
    """Engine and calibration of one product.

    Attributes:
        model: name of the engine's model.
        digest: SHA-256 over the engine's file, followed by the calibration's.
        changed_at: when the younger of the two files was written.
    """

    model: str
    digest: bytes
    changed_at: datetime


class Products:
    """Knows the products of a line, and looks again when their files have changed."""

    def __init__(self, line: LineConfig) -> None:
        self._line = line
        self._seen: dict[Path, tuple[int, int]] = {}
        self.configurations: dict[str, Configuration] = {}
        """By product; ``UNNAMED`` where the line names none. What cannot be read is not there."""

    @property
    def names(self) -> list[str]:
        """The products that can be selected."""
        return [name for name in self._line.products if name is not None]

    def look(self) -> bool:
        """Read the line's config and the files that it names, where they have changed.

        Returns:
            Whether anything is different.
        """
        seen = self._states()
        if seen == self._seen:
            return False
        try:
            self._line = self._line.read_again()
        except InputError as error:  # somebody is editing it; the line goes on with what it has
            _log.debug("%s", error)
        self._seen = self._states()
        configurations: dict[str, Configuration] = {}
        for name, product in self._line.products.items():
            try:
                model = read_manifest(product.engine).model
                digest, changed_at = _read(product.engine, product.calibration)
            except (InputError, OSError) as error:
                _log.warning("opcua: configuration %s: %s", name or UNNAMED, error)
                continue
            configurations[name or UNNAMED] = Configuration(model, digest, changed_at)
        self.configurations = configurations
        return True

    def _states(self) -> dict[Path, tuple[int, int]]:
        files = [self._line.file]
        for product in self._line.products.values():
            files += [product.engine, product.calibration]
        return {file: _state(file) for file in files}

    def judged_by(self, model: str, active: str | None) -> str:
        """Name the product of which a model judges; "" where that is not clear.

        Args:
            model: as a verdict names it.
            active: the product that is judged at the moment, for models of several products.
        """
        having = [name for name, one in self.configurations.items() if one.model == model]
        if len(having) == 1:
            return having[0]
        return active if active is not None and active in having else ""


def _state(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _read(*files: Path) -> tuple[bytes, datetime]:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                digest.update(chunk)
    youngest = max(file.stat().st_mtime for file in files)
    return digest.digest(), datetime.fromtimestamp(youngest, UTC)
