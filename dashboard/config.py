"""The config of the dashboard: which lines it shows, to whom, and where it keeps what it copies."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine_runtime.signatures import SigningKey
from foundation.errors import InputError, located
from foundation.yaml_file import described, read_yaml, shown
from lines.line_config import LineConfig, read_line
from verdicts.address import parse_address

A_CONFIG: Final = "the YAML config of inspectd-dashboard"
DEFAULT_LISTEN: Final = "http://127.0.0.1:8321"
_KEYS: Final = frozenset(
    {
        *("listen", "hosts", "certificate", "key", "state", "lines", "keep_days", "most_verdicts"),
        *("kinds", "shifts", "time_zone", "lake"),
    }
)
_LINE_KEYS: Final = frozenset({"config", "key", "server_key", "preview", "signing_key"})
_LISTEN: Final = re.compile(r"(https?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.*-]+):([0-9]{1,5})/?", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)
_SHIFT: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_NO_KIND: Final = re.compile(r"[\x00-\x1f\x7f/\\]")


@dataclass(frozen=True)
class DashboardConfig:
    """What ``inspectd-dashboard`` is to do.

    Attributes:
        file: the file that said so, for what is said about it.
        lines: by name.
        host: address to listen at.
        port: likewise.
        certificate: PEM file with the certificate and those that signed it; None without TLS.
        key: PEM file of its private key.
        hosts: names by which browsers may call this machine, beside addresses of the loopback.
        state: folder of the dashboard's own files.
        keep_days: how long rejects and faults are kept in the roll-up.
        most_verdicts: how many passes are kept there for each line.
        kinds: of defects, offered to whoever judges.
        shifts: when shifts begin, HH:MM in local time.
        time_zone: of the shifts; None for the machine's.
        lake: folder of ``inspectd-fleet lake``, with the verdicts of all plants; None without one.
    """

    file: Path
    lines: Mapping[str, LineConfig]
    host: str = "127.0.0.1"
    port: int = 8321
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    state: Path = field(default_factory=Path)
    keep_days: float = 90
    most_verdicts: int = 2_000_000
    kinds: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ("06:00", "14:00", "22:00")
    time_zone: ZoneInfo | None = None
    lake: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return parse_address(f"tcp://{self.host}:{self.port}").is_loopback

    @property
    def needs_login(self) -> bool:
        """Whether one must log in even before there is a user: where TLS is, others are meant to come."""
        return self.certificate is not None

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return f"{'https' if self.certificate else 'http'}://{self.host}:{self.port}/"


def of_one_line(path: Path) -> DashboardConfig:
    """Make the config of a dashboard of one line, on the loopback.

    Args:
        path: the line's config; the dashboard's own files go into the folder ``dashboard`` beside it, or to
            where systemd says.

    Raises:
        InputError: the line's config is wrong.
    """
    line = read_line(path)
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return DashboardConfig(
        path, {line.name: line}, state=Path(state) if state else path.absolute().parent / "dashboard"
    )


def load_config(path: Path) -> DashboardConfig:
    """Read and check a dashboard's config; relative paths count from its folder.

    Raises:
        InputError: it is wrong; the line names file, key, found and expected.
    """
    content = read_yaml(path, A_CONFIG).content
    folder = path.absolute().parent
    for key in content.keys() - _KEYS:
        raise InputError(f"{path}: {key}: unknown key; expected some of {', '.join(sorted(_KEYS))}")
    secure, host, port = _listen(path, content.get("listen", DEFAULT_LISTEN))
    certificate, key_file = (_file(path, content, key) for key in ("certificate", "key"))
    config = DashboardConfig(
        path,
        _lines(path, content.get("lines")),
        host,
        port,
        certificate=certificate,
        key=key_file,
        hosts=_texts(path, content, "hosts", _HOST, "the name of this machine, such as line3.example.org"),
        state=folder / _text(path, content, "state", os.environ.get("STATE_DIRECTORY") or "dashboard"),
        keep_days=_number(path, content, "keep_days", 90, least=1, most=3660),
        most_verdicts=int(_number(path, content, "most_verdicts", 2_000_000, least=1000, most=100_000_000)),
        kinds=_kinds(path, content),
        shifts=_texts(path, content, "shifts", _SHIFT, "times of the day such as 06:00")
        or DashboardConfig.shifts,
        time_zone=_zone(path, content.get("time_zone")),
        lake=_file(path, content, "lake", wanted="the folder of inspectd-fleet lake"),
    )
    if secure != (certificate is not None) or secure != (key_file is not None):
        raise InputError(
            f"{path}: listen: found {content.get('listen', DEFAULT_LISTEN)}; expected https:// with the keys "
            "certificate and key, or http:// without them"
        )
    if not secure and not config.is_loopback:
        raise InputError(
            f"{path}: listen: found {content['listen']}, which others can reach; expected https:// with the "
            "keys certificate and key, or http://127.0.0.1"
        )
    return config


def _listen(path: Path, found: object) -> tuple[bool, str, int]:
    match = _LISTEN.fullmatch(found) if isinstance(found, str) else None
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise InputError(
            f"{path}: listen: found {described(found)}, expected http://HOST:PORT or https://HOST:PORT, "
            f"such as {DEFAULT_LISTEN}"
        )
    try:
        parse_address(f"tcp://{match[2]}:{match[3]}")
    except ValueError as error:
        raise InputError(f"{path}: listen: found {found}, {error}") from error
    return match[1] == "https", "0.0.0.0" if match[2] == "*" else match[2], int(match[3])


def _lines(path: Path, found: object) -> dict[str, LineConfig]:
    wanted = "expected a list of the lines' config files"
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: lines: found {shown(found) or 'no list'}, {wanted}")
    lines: dict[str, LineConfig] = {}
    for number, entry in enumerate(found):
        at = f"lines.{number}"
        section: dict[str, Any] = {"config": entry} if isinstance(entry, str) else entry
        if not isinstance(section, dict) or not isinstance(section.get("config"), str):
            raise InputError(f"{path}: {at}: found {shown(entry) or 'no config'}, {wanted}")
        for key in section.keys() - _LINE_KEYS:
            raise InputError(
                f"{path}: {at}.{key}: unknown key; expected some of {', '.join(sorted(_LINE_KEYS))}"
            )
        files = {key: _file(path, section, key, f"{at}.{key}") for key in _LINE_KEYS}
        config = files["config"]
        assert config is not None
        with located(f"{path}: {at}"):
            line = read_line(
                config, files["key"], files["server_key"], files["preview"], files["signing_key"]
            )
        if line.signing_key is not None:
            SigningKey(line.signing_key)  # what is wrong with it is said now
        if line.name in lines:
            raise InputError(f"{path}: {at}: line {line.name} is named twice")
        lines[line.name] = line
    return lines


def _file(
    path: Path,
    content: Mapping[str, Any],
    key: str,
    name: str | None = None,
    wanted: str = "the path of a file",
) -> Path | None:
    found = content.get(key)
    if found is None:
        return None
    if not isinstance(found, str) or not found or "\0" in found:
        raise InputError(f"{path}: {name or key}: found {described(found)}, expected {wanted}")
    return path.absolute().parent / found


def _text(path: Path, content: Mapping[str, Any], key: str, default: str) -> str:
    found = content.get(key, default)
    if not isinstance(found, str) or not found or "\0" in found:
        raise InputError(f"{path}: {key}: found {described(found)}, expected a text")
    return found


def _texts(
    path: Path, content: Mapping[str, Any], key: str, pattern: re.Pattern[str], wanted: str
) -> tuple[str, ...]:
    found = content.get(key, [])
    if not isinstance(found, list):
        raise InputError(f"{path}: {key}: found {described(found)}, expected a list: {wanted}")
    for entry in found:
        if not isinstance(entry, str) or not pattern.fullmatch(entry):
            raise InputError(f"{path}: {key}: found {described(entry)}, expected {wanted}")
    return tuple(sorted(found)) if key == "shifts" else tuple(found)


def _kinds(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    found = content.get("kinds", [])
    if not isinstance(found, list):
        raise InputError(f"{path}: kinds: found {described(found)}, expected a list of names")
    for entry in found:
        if not is_kind(entry):
            raise InputError(f"{path}: kinds: found {described(entry)}, expected names of 1 to 64 characters")
    return tuple(found)


def is_kind(found: object) -> bool:
    """Whether a text can name a kind of defect, and the folder that its pictures are exported to."""
    return (
        isinstance(found, str)
        and 1 <= len(found) <= 64
        and len(found.encode(errors="replace")) <= 200
        and found.strip() == found
        and not found.startswith(".")
        and not _NO_KIND.search(found)
        and found.isprintable()
    )


def _number(
    path: Path, content: Mapping[str, Any], key: str, default: float, *, least: float, most: float
) -> float:
    found = content.get(key, default)
    if type(found) not in (int, float) or not least <= found <= most:
        raise InputError(
            f"{path}: {key}: found {described(found)}, expected a number from {least:g} to {most:.15g}"
        )
    return float(found)


def _zone(path: Path, found: object) -> ZoneInfo | None:
    if found is None:
        return None
    try:
        if isinstance(found, str):
            return ZoneInfo(found)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InputError(f"{path}: time_zone: found {described(found)}, expected a name such as Europe/Berlin")
