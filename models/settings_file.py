"""Options of a command from a YAML file; those on the command line win."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.parser import Parser
from foundation.yaml_file import described, read_yaml


def apply_settings(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Make the content of the file that ``--settings`` names the parser's defaults.

    Args:
        parser: has an option ``--settings``.
        arguments: of the command line.

    Raises:
        InputError: the file cannot be read, or has a key that is not an option or a value that does not
            fit it.
    """
    first = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    first.add_argument("--settings", type=Path)
    path = first.parse_known_args(list(arguments))[0].settings
    if path is None:
        return
    options = {
        action.option_strings[-1].removeprefix("--"): action
        for action in parser._actions
        if action.option_strings and action.dest not in {"help", "settings"}
    }
    for key, value in read_yaml(path, "options of this command").content.items():
        name = key.replace("_", "-")
        if name not in options:
            raise InputError(f"{path}: {key}: is not an option; expected one of {', '.join(options)}")
        action = options[name]
        try:
            if action.nargs == "+":
                if value == []:
                    raise ValueError("found nothing in it, expected at least one entry")
                found: Any = [
                    _parsed(action, part) for part in (value if isinstance(value, list) else [value])
                ]
            else:
                found = _parsed(action, value)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise InputError(f"{path}: {key}: {error}") from error
        parser.set_defaults(**{action.dest: found})
        action.required = False
        for group in parser._mutually_exclusive_groups:
            if action in group._group_actions:
                group.required = False


def _parsed(action: argparse.Action, value: object) -> Any:
    if isinstance(value, list | dict | bool) or value is None:
        raise ValueError(f"found {described(value)}; expected a text or a number")
    parse = action.type
    found = parse(str(value)) if callable(parse) else str(value)
    if action.choices is not None and found not in action.choices:
        raise ValueError(f"found {value!r:.40}; expected one of {', '.join(map(str, action.choices))}")
    return found
