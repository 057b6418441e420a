"""Reads YAML that a person may have edited: bounded, safe, with mistakes named by line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from foundation.errors import InputError, refused_by_system

# PyYAML reads about 100 kB per second, and a running line reads its config again while it judges.
_MOST_BYTES = 100_000
_MOST_NODES = 50_000


class YamlFile(NamedTuple):
    """A file's keys and values, and the nodes that know where they stand."""

    content: dict[str, Any]
    document: yaml.Node

    @property
    def json(self) -> str:
        """The content as JSON: in its strict mode pydantic then takes a number for a number alone."""
        return json.dumps(self.content)


class _Loader(yaml.SafeLoader):
    """Reads plain scalars by the core schema of YAML 1.2, which is what people mean.

    YAML 1.1, which PyYAML speaks, takes ``0500`` for 320, ``1:30`` for 90, ``on`` for true, ``1e3`` for a
    text and ``2026-01-31`` for a date. ``_unclear`` refuses what looks like a number and is not a decimal
    number of YAML 1.2.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in {"null", "bool", "int", "float", "str", "seq", "map"}
    }


_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    re.ASCII,
)
_UNCLEAR = re.compile(
    r"[-+]?(0[0-9_]+|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9]+(:[0-9_]+)+(\.[0-9_]*)?"
    r"|[0-9][0-9_]*_[0-9_]*(:[0-9_]+)*(\.[0-9_]*)?([eE][-+]?[0-9]+)?)",
    re.ASCII,
)
"""Numbers that are read as others by some, and texts that look like numbers."""
_BOOL, _NULL = re.compile(r"true|True|TRUE|false|False|FALSE"), re.compile(r"~|null|Null|NULL|")
_WANTED = {
    "int": (_INT, "a whole number in plain decimal digits"),
    "float": (re.compile(rf"{_FLOAT.pattern}|{_INT.pattern}", re.ASCII), "a number in decimal digits"),
    "bool": (_BOOL, "true or false"),
    "null": (_NULL, "null"),
}
"""Kind of a plain value → how it is written, in a pattern and in words."""
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_RESOLVERS = (
    ("bool", _BOOL, "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<"), "<"),
)
for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern.pattern})\Z", _pattern.flags), list(_first)
    )


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than a text."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        if not text.isprintable():  # PyYAML folds some of Unicode's line breaks into spaces
            return self.represent_scalar(_TEXT, text, style='"')
        clear = not (_UNCLEAR.fullmatch(text) or _FLOAT.fullmatch(text))
        return self.represent_scalar(_TEXT, text, style=None if clear else "'")


_Dumper.add_representer(str, _Dumper.represent_text)


def yaml_text(content: object) -> str:
    """Write what ``read_yaml`` reads as the same, in the order of its keys."""
    text: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
    return text


def read_text(path: Path, expected: str) -> bytes:
    """Read what a YAML file holds, for whoever wants its hash as well as its content.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise refused_by_system(f"{path}: cannot be read: {error.strerror}", error) from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"{path}: is larger than {_MOST_BYTES} bytes; expected {expected}")
    return text


def read_yaml(path: Path, expected: str, text: bytes | None = None) -> YamlFile:
    """Read a mapping.

    Args:
        path: the file.
        expected: what it should be, for what is said when it is not: "the config of a line".
        text: what ``read_text`` gave; read here when None.

    Raises:
        InputError: it cannot be read, is too large, is not YAML, is not a mapping, has a key twice, or has a
            number that is not what it looks like; the text names the file and, where there is one, its line.
    """
    document = _compose(path, expected, read_text(path, expected) if text is None else text)
    try:
        content = None if document is None else _Loader("").construct_document(document)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(path, error) from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        AttributeError,
        LookupError,
    ) as error:
        # PyYAML lets the errors of int(), datetime() and of its own recursion and indexing through.
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
    if document is None or not isinstance(content, dict):
        raise InputError(f"{path}: found no keys and values; expected {expected}")
    return YamlFile(content, document)


def _compose(path: Path, expected: str, text: bytes) -> yaml.Node | None:
    try:
        document: yaml.Node | None = yaml.compose(text, _Loader)
        written_out = 0 if document is None else _size(document, {})
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(path, error) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
    if written_out > _MOST_NODES:
        raise InputError(f"{path}: found aliases that expand without end; expected {expected}")
    for node, key in _repeated_keys(document):
        raise InputError(f"{path}:{node.start_mark.line + 1}: {key}: is given a second time here")
    for node, key, wrong in _unclear(document):
        raise InputError(f"{path}:{node.start_mark.line + 1}: {key}: {wrong}")
    return document


def _not_yaml(path: Path, error: yaml.MarkedYAMLError) -> InputError:
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return InputError(f"{path}:{line}: not YAML: {error.problem}")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes of a document with every alias written out, as merging keys (``<<``) does.

    A node that stands within itself has no end.
    """
    if id(node) not in known:
        known[id(node)] = _MOST_NODES + 1  # until it is counted: whoever meets it now is within it
        size = 1
        if isinstance(node, yaml.SequenceNode):
            size += sum(_size(entry, known) for entry in node.value)
        elif isinstance(node, yaml.MappingNode):
            size += sum(_size(key, known) + _size(value, known) for key, value in node.value)
        known[id(node)] = size
    return known[id(node)]


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
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        yield key, key.value
                    seen.add(key.value)
                nodes.append(value)


def _unclear(document: yaml.Node | None) -> Iterator[tuple[yaml.Node, str, str]]:
    """Find what is not what it looks like: the node, its key and what is wrong with it."""
    nodes = [(document, "")] if document is not None else []
    visited: set[int] = set()
    while nodes:
        node, at = nodes.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes.extend((entry, f"{at}.{index}") for index, entry in reversed([*enumerate(node.value)]))
        elif isinstance(node, yaml.MappingNode):
            for key, value in reversed(node.value):
                name = f"{at}.{key.value}" if isinstance(key, yaml.ScalarNode) else at
                nodes += [(value, name), (key, name)]
                if key.tag not in {_TEXT, _MERGE}:
                    yield key, name.lstrip(".") or "key", "expected a text as key; write it in quotes"
                elif isinstance(value, yaml.ScalarNode) and value.tag.endswith(":null") and not value.value:
                    # It looks as if something were asked for, and would count as if it were left out.
                    yield key, name.lstrip("."), "found nothing, expected a value; or leave the key out"
        elif isinstance(node, yaml.ScalarNode) and (wrong := _unclear_scalar(node)):
            yield node, at.lstrip("."), wrong


def _unclear_scalar(node: yaml.ScalarNode) -> str | None:
    text, kind = node.value, node.tag.rpartition(":")[2]
    if node.style is None and node.tag == _TEXT and _UNCLEAR.fullmatch(text):
        return _how_to_write(text)
    if kind in _WANTED and not _WANTED[kind][0].fullmatch(text):  # by its tag alone, such as !!int
        return f"found {text!r:.40}, expected {_WANTED[kind][1]}"
    # The longest that YAML can say Python refuses to write out.
    if kind == "int" and (len(text) > 21 or int(text).bit_length() > 64):
        return f"found {text:.30}{'…' if len(text) > 30 else ''}, expected a number of at most 64 bits"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "found half of a character (a lone surrogate), expected text"
    if "\0" in text:  # no name of a file or of anything else has one
        return "found a text with a null character, expected one without"
    return None


def _how_to_write(text: str) -> str:
    try:
        other = yaml.safe_load(text) if len(text) <= 40 else text
    except ValueError:
        other = text
    read = f", which YAML may read as {other}" if isinstance(other, int | float) else ""
    return f"found {text:.40}{read}; expected plain decimal digits, or a text in quotes"


def shown(found: object) -> str | None:
    """Write a value that was found, in at most 80 characters; None for what is not plain.

    Written out, a structure of aliases may be endless.
    """
    return f"{found!r:.80}" if isinstance(found, str | int | float | None) else None


def described(found: object) -> str:
    """Write a value that was found, as ``shown`` does, or say what it is where it is not plain."""
    return shown(found) or ("a list" if isinstance(found, list) else "keys and values")
