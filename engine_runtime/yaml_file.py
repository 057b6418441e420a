"""The one way in which YAML that a person may have edited is read: bounded, safe, mistakes named by line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from engine_runtime.errors import InputError

_MOST_BYTES = 1_000_000


class YamlFile(NamedTuple):
    """A file's keys and values, and the nodes that know where they stand."""

    content: dict[Any, Any]
    document: yaml.Node


def read_yaml(path: Path, expected: str) -> YamlFile:
    """Read a mapping.

    Args:
        path: the file.
        expected: what it should be, for what is said when it is not: "the config of a line".

    Raises:
        InputError: it cannot be read, is too large, is not YAML, is no mapping or has a key twice; the line
            names the file and, where there is one, the line in it.
    """
    document = _compose(path, expected)
    try:
        content = None if document is None else yaml.SafeLoader("").construct_document(document)
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        AttributeError,
        KeyError,
    ) as error:
        # PyYAML lets the errors of int(), datetime() and of its own recursion through.
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
    if document is None or not isinstance(content, dict):
        raise InputError(f"{path}: found no keys and values; expected {expected}")
    return YamlFile(content, document)


def _compose(path: Path, expected: str) -> yaml.Node | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"{path}: is larger than {_MOST_BYTES} bytes; expected {expected}")
    try:
        document: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split()):.200}") from error
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
