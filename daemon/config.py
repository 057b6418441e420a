"""The config of a line: YAML, checked against the models below, every mistake named by file, line and key."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from daemon.cameras import CameraSettings
from engine_runtime.errors import InputError
from verdicts.message import NAME

_MOST_BYTES = 1_000_000
_LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+|ipc://.+")


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError('expected a name of 1 to 64 letters, digits, "_", "." or "-"')
    return name


Name = Annotated[str, AfterValidator(_name)]


class ArchiveConfig(BaseModel):
    """Where pictures of rejects are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    max_mb: int = Field(default=1000, gt=0)


class Config(BaseModel):
    """One line. Relative paths count from the config file's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: Name
    engine: Path
    calibration: Path
    publish: str = Field(description="where the verdicts go, such as tcp://127.0.0.1:5560")
    deadline_ms: float = Field(default=1000, gt=0, le=3_600_000)
    lanes: int = Field(default=1, ge=1, le=16)
    threads: int | None = Field(default=None, ge=1, le=1024, description="of each lane; the runtime's choice")
    max_batch: int | None = Field(default=None, ge=1, description="the engine's own when absent")
    archive: ArchiveConfig | None = None
    cameras: Annotated[dict[Name, CameraSettings], Field(min_length=1)]

    @field_validator("publish")
    @classmethod
    def _publish_is_local(cls, address: str) -> str:
        if not _LOOPBACK.fullmatch(address):
            raise ValueError(
                "expected a loopback address such as tcp://127.0.0.1:5560, or ipc://PATH; "
                "verdicts on other interfaces want encryption, which this version does not have"
            )
        return address


def load_config(path: Path) -> Config:
    """Read and check a line's config.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks a rule; the line names file, line, key,
            what was found and what was expected.
    """
    document = _compose(path)
    try:
        content = None if document is None else yaml.SafeLoader("").construct_document(document)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        # PyYAML lets the errors of int() and datetime() through.
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with the keys {', '.join(Config.model_fields)}")
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{path}:{_describe(problems[0], document)}{more}") from error
    folder = path.parent
    archive = config.archive
    if archive is not None:
        archive = archive.model_copy(update={"folder": folder / archive.folder})
    return config.model_copy(
        update={
            "engine": folder / config.engine,
            "calibration": folder / config.calibration,
            "archive": archive,
            "cameras": {name: _from_folder(camera, folder) for name, camera in config.cameras.items()},
        }
    )


def _from_folder(camera: CameraSettings, folder: Path) -> CameraSettings:
    if "://" in camera.source:
        return camera
    return replace(camera, source=str(folder / camera.source))


def _compose(path: Path) -> yaml.Node | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"{path}: is larger than {_MOST_BYTES} bytes; expected the YAML config of a line")
    try:
        document = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    for node, key in _repeated_keys(document):
        raise InputError(f"{path}:{node.start_mark.line + 1}: {key}: stands here for the second time")
    return document


def _repeated_keys(document: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Find keys that stand twice in one mapping; YAML itself would let the later one win in silence."""
    nodes = [document] if document is not None else []
    visited: set[int] = set()
    while nodes:
        node = nodes.pop()
        if id(node) in visited:  # an alias
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    yield key, key.value
                seen.add(str(key.value))
                nodes.append(value)


def _describe(problem: ErrorDetails, document: yaml.Node | None) -> str:
    """Make ``LINE: KEY: found …, expected …`` of pydantic's finding."""
    location = [str(step) for step in problem["loc"] if step != "[key]"]
    key, line = ".".join(location), _line_of(document, location)
    match problem["type"]:
        case "missing":
            return f"{line}: {key}: missing; expected it here"
        case "extra_forbidden" | "unexpected_keyword_argument":
            near = difflib.get_close_matches(location[-1], _keys_beside(location), n=1)
            return f"{line}: {key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
        case "value_error":
            wanted = str(problem["ctx"]["error"])
        case _:
            wanted = "expected " + problem["msg"].removeprefix("Input should be ")
    found = problem["input"]
    # Only plain values are shown: written out, a structure of YAML aliases may be endless.
    shown = f"found {found!r:.80}, " if isinstance(found, str | int | float | None) else ""
    return f"{line}: {key}: {shown}{wanted}"


def _keys_beside(location: Sequence[str]) -> list[str]:
    match location:
        case [_]:
            return list(Config.model_fields)
        case ["cameras", _, _]:
            return [field.name for field in fields(CameraSettings)]
        case ["cameras", _, "roi", _]:
            return ["x", "y", "width", "height"]
        case _:
            return list(ArchiveConfig.model_fields)


def _line_of(node: yaml.Node | None, location: Sequence[str]) -> int:
    """Give the line of a key, or of the innermost mapping around it when it is not there."""
    line = 1
    for step in location:
        if not isinstance(node, yaml.MappingNode):
            break
        found: list[tuple[Any, yaml.Node]] = [(k, v) for k, v in node.value if k.value == step]
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line
