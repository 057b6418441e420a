"""Which line a command means."""

import argparse
from pathlib import Path

from daemon.inspectctl.this_machine import only_line
from foundation.errors import InputError


def add_line_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="where the daemon publishes, such as tcp://127.0.0.1:5560")
    parser.add_argument("--line", metavar="NAME", help="name of the line, such as line3")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the daemon's own, instead of --address and --line; without any of them, the one line that runs "
        "on this machine",
    )


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that ``config_of`` reads, for commands that need the line's files."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the line's; without it, that of the one line that runs on this machine",
    )


def config_of(options: argparse.Namespace) -> Path:
    """Give the config of the line that is meant.

    Raises:
        InputError: none was named, and not one line alone runs on this machine.
    """
    return options.config or only_line()


def address_and_line(options: argparse.Namespace) -> tuple[str, str]:
    given = (options.address is not None, options.line is not None)
    if options.config is None and not any(given):
        options.config = only_line()
    if options.config is None and all(given):
        return options.address, options.line
    if options.config is None or any(given):
        raise InputError("which line: expected --address and --line, or --config alone")
    from foundation.yaml_file import read_yaml

    config = read_yaml(options.config, "the config of a line").content
    line = _text(options.config, config, "line", "line3")
    publish = _text(options.config, config, "publish", "tcp://127.0.0.1:5560")
    if config.get("curve") is not None and options.key is None:
        raise InputError(f"{options.config}: the line has a section curve; expected --key and --server-key")
    return address_in(options.config, "publish", publish), line


def address_in(config: Path, key: str, text: str) -> str:
    """Give the address to connect to for one that a line's config names.

    Raises:
        InputError: it is not an address.
    """
    from verdicts.address import address_from, from_this_machine

    try:
        return from_this_machine(address_from(config.parent, text))
    except ValueError as error:
        raise InputError(f"{config}: {key}: found {text!r}, {error}") from error


def _text(path: Path, config: dict[str, object], key: str, example: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        found = "nothing" if value is None else repr(value)
        raise InputError(f"{path}: {key}: found {found}, expected text such as {example}")
    return value
