"""What a release of a line is: its config and all files that this judges by, each named with its SHA-256."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from calibration.golden import LIST, folder_of, load_golden, read_list
from daemon.config import Config, load_config
from daemon.load import load_products, load_references
from engine_runtime.signatures import signature_of
from foundation.errors import InputError, refused_by_system
from lines.section import Name

A_RELEASE: Final = "a release, made by inspectctl release make"
MOST_FILES: Final = 10_000
MOST_BYTES: Final = 1 << 22
"""Of the list itself; a release with the most files has two megabytes."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_PART: Final = re.compile(r"[^/\\\x00-\x1f]+")


class ReleasedFile(BaseModel):
    """One file of a release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="from the config's folder")
    sha256: Sha256
    size: int = Field(ge=0, description="bytes")

    @field_validator("path")
    @classmethod
    def _stays_in_its_folder(cls, path: str) -> str:
        parts = path.split("/")
        if not all(_PART.fullmatch(part) and part not in {".", ".."} for part in parts):
            raise ValueError("expected a path below the config's folder")
        return path


class Release(BaseModel):
    """One release of one line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    line: Name
    number: int = Field(ge=1, description="one more than that of the line's release before")
    made_at: str = Field(description="ISO 8601, UTC")
    config: str = Field(description="path of the line's config among the files")
    files: tuple[ReleasedFile, ...] = Field(min_length=1, max_length=MOST_FILES)

    @field_validator("files")
    @classmethod
    def _are_named_once(cls, files: tuple[ReleasedFile, ...]) -> tuple[ReleasedFile, ...]:
        names = [PurePosixPath(file.path) for file in files]
        if len(set(names)) < len(names) or {parent for name in names for parent in name.parents} & set(names):
            raise ValueError("expected each file once, and no file where another one has a folder")
        return files


def parse_release(where: str, content: bytes) -> Release:
    """Read what ``inspectctl release make`` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        release = Release.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{where}: {key}: {first['msg']}; expected {A_RELEASE}") from error
    if release.config not in {file.path for file in release.files}:
        raise InputError(f"{where}: config: {release.config} is not among its files; expected {A_RELEASE}")
    return release


def described(path: Path) -> tuple[str, tuple[ReleasedFile, ...]]:
    """See that a config and what it names fit together, and list all of it.

    Engines are not opened: the machine on which releases are made may have another device.

    Returns:
        The line's name, and its files; the config is the first.

    Raises:
        InputError: something does not fit, or lies outside the config's folder.
    """
    # Who may have signed engines is checked on the line; its keys need not be here.
    config = load_config(path).model_copy(update={"trusted_keys": None})
    references = load_references(config, path)
    for product in load_products(config, path, references).values():
        if config.golden is not None or read_list(folder_of(product.calibration)) is not None:
            load_golden(
                product.calibration,
                product.calibrated,
                product.manifest,
                product.merge,
                references=references.values(),
            )
    files = [_listed(path, file) for file in dict.fromkeys((path, *files_of(config)))]
    return config.line, tuple(files)


def files_of(config: Config) -> Iterator[Path]:
    """Name the files that a config judges by, beside itself; those alone that are there."""
    for product in config.named_products().values():
        golden = folder_of(product.calibration)
        samples = read_list(golden)
        named = [product.engine, signature_of(product.engine)]
        named += [product.calibration, signature_of(product.calibration)]
        named += [] if product.mask is None else [product.mask]
        if samples is not None:
            named += [golden / LIST, *(golden / entry.file for entry in samples.samples)]
        yield from (file for file in named if file.exists())
    for camera in config.cameras.values():
        if camera.locate is not None:
            yield Path(camera.locate.reference)
        if camera.mask is not None:
            yield Path(camera.mask)


def _listed(config: Path, file: Path) -> ReleasedFile:
    try:
        path = file.absolute().relative_to(config.absolute().parent).as_posix()
        content = file.read_bytes()
        return ReleasedFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    except OSError as error:
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    except ValueError as error:
        raise InputError(
            f"{config}: names {file}; expected a file in the folder of the config, with which it travels"
        ) from error
