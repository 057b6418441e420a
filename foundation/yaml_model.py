"""Checks a YAML file against a pydantic model; the first mistake is one line with file, line and key."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from foundation.errors import InputError
from foundation.yaml_file import read_yaml, shown

Model = TypeVar("Model", bound=BaseModel)


def read_model(
    path: Path, expected: str, model: type[Model], text: bytes | None = None
) -> tuple[Model, yaml.Node]:
    """Read and check a file; its folder is the validators' context.

    Args:
        path: the file.
        expected: what it should be, such as "the config of a line".
        model: its keys; unknown ones have to be forbidden by it.
        text: what ``read_text`` gave; read here when None.

    Returns:
        The content, and the nodes that know where its keys stand, for ``line_of``.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks a rule; the text names file, line, key,
            what was found and what was expected.
    """
    file = read_yaml(path, expected, text)
    try:
        content = model.model_validate_json(file.json, strict=True, context=path.absolute().parent)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{path}:{_describe(problems[0], file.document, model)}{more}") from error
    return content, file.document


def _describe(problem: ErrorDetails, document: yaml.Node | None, model: type[BaseModel]) -> str:
    """Make ``LINE: KEY: found …, expected …`` of pydantic's finding."""
    location, keys, kinds = _in_file(problem["loc"], model)
    key, line = ".".join(location) or "the whole", line_of(document, location)
    match problem["type"]:
        case "missing":
            return f"{line}: {key}: missing; expected it here"
        case "extra_forbidden" | "unexpected_keyword_argument":
            near = difflib.get_close_matches(location[-1], keys, n=1)
            known = f"expected some of {', '.join(keys)}"
            return f"{line}: {key}: unknown key; " + (f"did you mean {near[0]}?" if near else known)
        case "value_error":
            wanted = str(problem["ctx"]["error"])
        case "list_type" | "tuple_type":
            wanted = "expected a list"
        case "dict_type" | "model_type" | "dataclass_type":
            wanted = "expected keys and values"
        case "named_tuple_type":
            wanted = f"expected {{{', '.join(f'{name}: …' for kind in kinds for name in _fields(kind))}}}"
        case "too_short" if problem["ctx"]["actual_length"] == 0:
            wanted = "found nothing in it, expected at least one entry"
        case "bool_type":
            wanted = "expected true or false"
        case "string_type" | "path_type":
            wanted = "expected a text; write it in quotes"
        case _:
            wanted = "expected " + problem["msg"].removeprefix("Input should be ")
    found = shown(problem["input"])
    return f"{line}: {key}: {f'found {found}, ' if found else ''}{wanted}"


def _in_file(location: Sequence[int | str], model: type[BaseModel]) -> tuple[list[str], list[str], list[Any]]:
    """Give the steps of a location that stand in the file, the keys beside the last, and its kinds of value.

    Pydantic's location also names the member of a union that it tried.
    """
    steps: list[str] = []
    kinds: list[Any] = [model]
    keys: list[str] = []
    for index, step in enumerate(location):
        if step == "[key]":
            continue
        beside = [name for kind in kinds for name in _fields(kind)]
        inside = [kind for parent in kinds for kind in _inside(parent, step)]
        if inside or (index == len(location) - 1 and isinstance(step, str) and beside):
            steps.append(str(step))
            keys = beside
        kinds = inside or kinds
    return steps, keys, kinds


def _fields(kind: Any) -> Mapping[str, Any]:
    """Give the keys of a section, each with what it may hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in fields(kind)}
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return get_type_hints(kind, include_extras=True)
    return {}


def _inside(kind: Any, step: int | str) -> Iterator[Any]:
    """Give the kinds of value that a step leads to."""
    found = _fields(kind)
    if step in found:
        yield from _members(found[str(step)])
    elif get_origin(kind) is dict:
        yield from _members(get_args(kind)[1])
    elif get_origin(kind) in (list, tuple) and isinstance(step, int):
        yield from _members(get_args(kind)[0])


def _members(annotation: Any) -> Iterator[Any]:
    """Give what an annotation allows: the members of a union, without what annotates them."""
    if hasattr(annotation, "__metadata__"):
        yield from _members(annotation.__origin__)
    elif get_origin(annotation) in (dict, list, tuple) or not get_args(annotation):
        yield annotation
    else:
        for member in get_args(annotation):
            yield from _members(member)


def line_of(node: yaml.Node | None, location: Sequence[str]) -> int:
    """Give the line of a key, or of the innermost section around it when it is not there."""
    line = 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found: list[tuple[Any, yaml.Node]] = [(k, v) for k, v in node.value if k.value == step]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
            node = node.value[int(step)]
            line = node.start_mark.line + 1
        else:
            break
    return line
