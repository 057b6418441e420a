"""The one way in which YAML that a person may have edited is read: bounded, safe, mistakes named by line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from foundation.errors import InputError, refused_by_system

# PyYAML reads about 100 kB per second, and a running line reads its config anew while it judges.
_MOST_BYTES = 100_000
_MOST_NODES = 50_000


class YamlFile(NamedTuple):
    """A file's keys and values, and the nodes that know where they stand."""

    content: dict[Any, Any]
    document: yaml.Node


class _Loader(yaml.SafeLoader):
    """Knows whole numbers of up to 64 bits: the longest that YAML can say Python refuses to write out."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > 64:
            raise ValueError("found a number of more than 64 bits")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


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
        InputError: it cannot be read, is too large, is not YAML, is no mapping or has a key twice; the line
            names the file and, where there is one, the line in it.
    """
    document = _compose(path, expected, read_text(path, expected) if text is None else text)
    try:
        content = None if document is None else _Loader("").construct_document(document)
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
        document: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
        written_out = 0 if document is None else _size(document, {})
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
    if written_out > _MOST_NODES:
        raise InputError(f"{path}: found aliases of aliases without end; expected {expected}")
    for node, key in _repeated_keys(document):
        raise InputError(f"{path}:{node.start_mark.line + 1}: {key}: stands here for the second time")
    return document


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


def shown(found: object) -> str | None:
    """Write a value that was found, in at most 80 characters; None for what is not plain.

    Written out, a structure of aliases may be endless.
    """
    return f"{found!r:.80}" if isinstance(found, str | int | float | None) else None
