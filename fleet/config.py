"""The config of a fleet: which lines, which hub, which lake. One file may serve all commands."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from foundation.errors import InputError, located
from foundation.yaml_model import read_model
from lines.line_config import read_line
from lines.section import File, Name, Section
from verdicts import CurveKeys
from verdicts.address import from_this_machine, parse_address

A_CONFIG: Final = "the YAML config of inspectd-fleet"
_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _server(text: str) -> str:
    _address(text, ("nats", "tls"), "nats://HOST:4222, or tls:// with TLS")
    return text


def _database(text: str) -> str:
    parts = _address(text, ("postgresql", "postgres"), "postgresql://USER@HOST/DATABASE")
    if parts.password is not None:
        raise ValueError("expected no password in the address; password names a file")
    return text


def _web(text: str) -> str:
    _address(text, ("http", "https"), "http://HOST:8222")
    return text


def _address(text: str, schemes: tuple[str, ...], wanted: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        sound = parts.port != 0 and bool(parts.hostname or parts.scheme.startswith("postgres"))
    except ValueError:
        raise ValueError(f"expected {wanted}") from None
    if parts.scheme not in schemes or not sound or not text.isprintable() or " " in text:
        raise ValueError(f"expected {wanted}")
    return parts


class NatsConfig(Section):
    """A stream of NATS JetStream."""

    servers: Annotated[tuple[Annotated[str, AfterValidator(_server)], ...], Field(min_length=1)]
    stream: str = Field(default="INSPECTD", description="made when it is not there")
    credentials: File | None = Field(default=None, description="file from nsc or nats: JWT and key")
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the password, mode 0600, or credential:NAME of the service"
    )
    ca: File | None = Field(default=None, description="certificates that may have signed the server's, PEM")
    certificate: File | None = Field(default=None, description="to show to the server, PEM")
    certificate_key: File | None = Field(default=None, description="its private key, PEM")
    monitoring: Annotated[str, AfterValidator(_web)] | None = Field(
        default=None, description="the server's http port: tells whether it syncs before it acknowledges"
    )
    replicas: int = Field(default=1, ge=1, le=5, description="of the stream, in a cluster")
    keep_days: float = Field(default=7, gt=0, le=3660, description="in the stream")
    max_gb: float = Field(default=10, gt=0, le=1_000_000, description="of the stream; then it takes no more")
    duplicates_s: float = Field(default=120, ge=1, le=86_400, description="how long it remembers ids")
    timeout_s: float = Field(default=10, ge=0.1, le=600, description="an answer that takes longer is none")

    @field_validator("stream")
    @classmethod
    def _is_stream(cls, text: str) -> str:
        if not _STREAM.fullmatch(text):
            raise ValueError("expected 1 to 64 letters, digits, _ or -")
        return text

    @field_validator("certificate_key")
    @classmethod
    def _comes_with_certificate(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("certificate") is None:
            raise ValueError("expected certificate beside it")
        return path


class PostgreSqlConfig(Section):
    """Two tables in a database of PostgreSQL 13 or later."""

    address: Annotated[str, AfterValidator(_database)] = Field(
        description="postgresql://USER@HOST/DATABASE, with ?sslmode=verify-full and the like"
    )
    password: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the password, mode 0600, or credential:NAME of the service"
    )
    keep_days: float = Field(default=7, gt=0, le=3660, description="in the table, after it is in the lake")
    timeout_s: float = Field(default=10, ge=0.1, le=600, description="an answer that takes longer is none")


class HubConfig(Section):
    """Where all verdicts come together: one of the two."""

    nats: NatsConfig | None = None
    postgresql: PostgreSqlConfig | None = None


class LineSection(Section):
    """One line: its config where that is on this machine, else its name and where it answers requests."""

    config: File | None = None
    line: Name | None = None
    control: str | None = Field(default=None, description="such as tcp://10.1.0.4:5561")
    key: File | None = Field(
        default=None, description="secret key to connect with, where the line has a section curve"
    )
    server_key: File | None = Field(default=None, description="the line's public key, likewise")


class LakeConfig(Section):
    """Where the Parquet files are."""

    folder: File
    every_s: float = Field(default=60, ge=0.2, le=86_400, description="between two writes")
    most_rows: int = Field(default=100_000, ge=1, le=10_000_000, description="written before that time")


class PicturesConfig(Section):
    """A store that speaks S3."""

    endpoint: Annotated[str, AfterValidator(_web)] = Field(description="such as https://s3.example.org")
    bucket: Name = Field(description="is there already")
    region: Annotated[str, Field(min_length=1, max_length=64)] = "us-east-1"
    access_key: Annotated[str, Field(min_length=1)] = Field(
        description="file with the key's name, mode 0600, or credential:NAME of the service"
    )
    secret_key: Annotated[str, Field(min_length=1)] = Field(description="likewise, with the key itself")
    timeout_s: float = Field(default=10, ge=0.1, le=600, description="an answer that takes longer is none")


class FleetConfig(Section):
    """Many lines. Relative paths count from this file's folder."""

    plant: Name | None = Field(default=None, description="of these lines; rows of the lake carry it")
    name: Name = Field(default="fleet", description="under which the lines keep a place in their journals")
    lines: tuple[LineSection, ...] = Field(default=(), description="for forward")
    hub: HubConfig | None = Field(default=None, description="for forward and lake")
    lake: LakeConfig | None = Field(default=None, description="for lake and report")
    pictures: PicturesConfig | None = Field(default=None, description="for pictures and picture")
    state: File | None = Field(
        default=None,
        description="folder of own files; StateDirectory under systemd, else fleet beside this file",
    )

    @field_validator("hub")
    @classmethod
    def _is_one(cls, hub: HubConfig | None) -> HubConfig | None:
        if hub is not None and (hub.nats is None) == (hub.postgresql is None):
            raise ValueError("expected either nats or postgresql in it")
        return hub


@dataclass(frozen=True)
class Line:
    """One line, as ``forward`` needs it.

    Attributes:
        name: of the line.
        control: where it answers.
        curve: keys; None without encryption.
        journal: its file; None where the line's config is not on this machine, or names none.
    """

    name: str
    control: str
    curve: CurveKeys | None
    journal: Path | None = None


@dataclass(frozen=True)
class Fleet:
    """A config that was read and checked.

    Attributes:
        file: the config, for what is said about it.
        config: what it says.
        lines: all that it names.
        state: folder of own files.
    """

    file: Path
    config: FleetConfig
    lines: tuple[Line, ...]
    state: Path

    @property
    def hub(self) -> HubConfig:
        """The section ``hub``.

        Raises:
            InputError: it is missing.
        """
        if self.config.hub is None:
            raise self.missing("hub", "where all verdicts come together")
        return self.config.hub

    @property
    def lake(self) -> LakeConfig:
        """The section ``lake``.

        Raises:
            InputError: it is missing.
        """
        if self.config.lake is None:
            raise self.missing("lake", "the folder of the Parquet files")
        return self.config.lake

    @property
    def pictures(self) -> PicturesConfig:
        """The section ``pictures``.

        Raises:
            InputError: it is missing.
        """
        if self.config.pictures is None:
            raise self.missing("pictures", "the store of pictures")
        return self.config.pictures

    @property
    def plant(self) -> str:
        """The name of the plant.

        Raises:
            InputError: it is missing.
        """
        if self.config.plant is None:
            raise self.missing("plant", "the name of the plant in which these lines are")
        return self.config.plant

    def missing(self, key: str, wanted: str) -> InputError:
        """Make the error of a key that this command needs."""
        return InputError(f"{self.file}: {key}: missing; expected {wanted}")


def load_fleet(path: Path) -> Fleet:
    """Read and check the config, and those of the lines that it names.

    Raises:
        InputError: one of them is wrong; the text names file, line, key, found and expected.
    """
    config, _ = read_model(path, A_CONFIG, FleetConfig)
    lines = tuple(_line(path, number, section) for number, section in enumerate(config.lines))
    names: set[str] = set()
    for number, line in enumerate(lines):
        if line.name in names:
            raise InputError(f"{path}: lines.{number}: line {line.name} is named twice")
        names.add(line.name)
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    state = config.state or (Path(given) if given else path.absolute().parent / "fleet")
    return Fleet(path, config, lines, state)


def _line(path: Path, number: int, section: LineSection) -> Line:
    at = f"{path}: lines.{number}"
    if section.config is not None:
        if section.line is not None or section.control is not None:
            raise InputError(f"{at}: found config beside line or control; expected one or the other")
        with located(f"{at}.config"):
            line = read_line(section.config, section.key, section.server_key)
        if line.control is None:
            raise InputError(
                f"{section.config}: control: missing; expected it here: {path} needs a line that keeps its "
                "place in its journal"
            )
        return Line(line.name, line.control, line.curve, line.journal)
    if section.line is None or section.control is None:
        raise InputError(f"{at}: expected config, or line and control")
    try:
        parse_address(section.control)
        control = from_this_machine(section.control)
    except ValueError as error:
        raise InputError(f"{at}.control: found {section.control!r:.80}, {error}") from error
    return Line(section.line, control, _curve(at, section))


def _curve(at: str, section: LineSection) -> CurveKeys | None:
    if (section.key is None) != (section.server_key is None):
        raise InputError(f"{at}: expected both key and server_key, or neither")
    if section.key is None or section.server_key is None:
        return None
    try:
        return CurveKeys.read(section.key, section.server_key)
    except ValueError as error:
        raise InputError(f"{at}.key: {error}") from error
