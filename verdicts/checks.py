"""What every message of the wire keeps to, and how it is refused where it does not."""

# Only the standard library: the PC of a reject gate installs pyzmq and nothing else.
import json
import math
import re
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, NoReturn

SCHEMA: Final = 1
MAX_BYTES: Final = 64 * 1024
"""The longest payload that is sent or believed."""

NAME: Final = re.compile(r"(?!-\Z)[A-Za-z0-9_.-]{1,64}")
"""Names of lines and cameras, for ``fullmatch``: they go into topics, where "-" means no camera."""

_SHA_256: Final = re.compile(r"[0-9a-f]{64}")
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]{1,64}")
_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)", re.ASCII)
_LARGEST: Final = 2**53 - 1  # beyond it JavaScript and most JSON readers round


class MalformedMessage(ValueError):
    """The bytes or values are not a message of schema 1; the text names the key, found and expected."""


def read_json(payload: bytes) -> object:
    """Read JSON of schema 1 that came from anybody; a ``MalformedMessage`` is raised for anything else."""
    if len(payload) > MAX_BYTES:
        raise MalformedMessage(f"payload: found {len(payload)} bytes, expected at most {MAX_BYTES}")
    try:
        content: object = json.loads(payload.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, MalformedMessage):
            raise
        raise MalformedMessage(f"payload: not JSON in UTF-8: {error}") from error
    if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
        raise MalformedMessage(f"schema: found {shown(content['schema'])}, expected {SCHEMA}")
    return content


def keys_of(kind: type[Any]) -> tuple[str, ...]:
    """Name the fields of a message, which are its keys on the wire."""
    return tuple(entry.name for entry in fields(kind))


def check_object(content: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    """Give an object that has exactly these keys. This and the checks below raise ``MalformedMessage``."""
    if not isinstance(content, dict):
        raise malformed(where, content, "an object")
    if content.keys() != set(keys):
        missing, unknown = sorted(set(keys) - content.keys()), sorted(content.keys() - set(keys))
        raise MalformedMessage(f"{where}: missing keys {shown(missing)}, unknown keys {shown(unknown)}")
    return content


def check_schema(value: object) -> None:
    """Refuse another version of the messages."""
    if type(value) is not int or value != SCHEMA:
        raise malformed("schema", value, f"{SCHEMA}")


def check_name(key: str, value: object) -> None:
    """Refuse what is not the name of a line, a camera or a subscriber."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise malformed(key, value, 'a name of 1 to 64 letters, digits, "_", "." or "-"')


def check_hexadecimal(key: str, value: object) -> None:
    """Refuse what does not name a start of a daemon or of a subscriber."""
    if not isinstance(value, str) or not _HEXADECIMAL.fullmatch(value):
        raise malformed(key, value, "1 to 64 hexadecimal digits")


def check_sha_256(key: str, value: object) -> None:
    """Refuse what is not a SHA-256 as it is written everywhere."""
    if not isinstance(value, str) or not _SHA_256.fullmatch(value):
        raise malformed(key, value, "a SHA-256 in 64 hexadecimal digits")


def check_flag(key: str, value: object) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise malformed(key, value, "true or false")


def check_text(key: str, value: object, optional: bool = False) -> None:
    """Refuse what is not text that UTF-8 can carry."""
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise malformed(key, value, "text or null" if optional else "text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise malformed(key, value, "text that UTF-8 can carry")  # Python's stand-ins for undecodable bytes


def check_count(key: str, value: object, least: int = 0) -> None:
    """Refuse what is not a whole number that every reader of JSON keeps as it is."""
    if type(value) is not int or not least <= value <= _LARGEST:
        raise malformed(key, value, f"a whole number from {least} to 2^53 - 1")


def check_number(key: str, value: object, optional: bool = False) -> None:
    """Refuse what is not a finite number."""
    if value is None and optional:
        return
    if isinstance(value, float):
        if math.isfinite(value):
            return
    elif type(value) is int and abs(value) <= _LARGEST:
        return
    raise malformed(key, value, "a finite number or null" if optional else "a finite number")


def check_one_of(key: str, value: object, allowed: frozenset[str]) -> None:
    """Refuse what is not one of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise malformed(key, value, f"one of {listed(allowed)}")


def check_stamp(key: str, value: object) -> None:
    """Refuse what is not a time in UTC as the daemon writes it."""
    if isinstance(value, str) and _STAMP.fullmatch(value):
        try:
            datetime.fromisoformat(value)
            return
        except ValueError:
            pass  # such as a 30th of February
    raise malformed(key, value, "a time in UTC such as 2026-01-31T12:00:00.000000Z")


def malformed(key: str, found: object, expected: str) -> MalformedMessage:
    """Make what to raise of a value that is not as expected."""
    return MalformedMessage(f"{key}: found {shown(found)}, expected {expected}")


def shown(value: object) -> str:
    """Show a value that came from anybody, in at most 80 characters."""
    try:
        text = repr(value)
    except RecursionError:  # it was just shallow enough to be read
        return "something nested too deeply"
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(names: frozenset[str]) -> str:
    """Name what is allowed, in a fixed order."""
    return ", ".join(sorted(names))


def _no_constant(constant: str) -> NoReturn:
    raise MalformedMessage(f"payload: found {constant}, expected finite numbers")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise MalformedMessage("payload: a key is given twice")
    return content
