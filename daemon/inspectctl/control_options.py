"""The control address of a line, and with which keys a command connects to it."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import address_in
from daemon.inspectctl.this_machine import only_line
from foundation.errors import InputError, WorkFailed

if TYPE_CHECKING:
    from verdicts import LineControl


def add_control_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``line_control`` reads."""
    parser.add_argument("--control", metavar="ADDRESS", help="the line's control address")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the daemon's own, instead of --control; without both, the one line that runs on this machine",
    )
    add_key_options(parser)


@contextmanager
def line_control(options: argparse.Namespace, timeout_s: float = 3.0) -> "Iterator[LineControl]":
    """Connect to the line that the options mean.

    Raises:
        InputError: the options mean no line, or the line refuses what it is asked in the block, or either
            side says what the other cannot read.
        WorkFailed: the line does not answer.
    """
    from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage

    try:
        control = LineControl(_address(options), curve=curve_keys(options), timeout_s=timeout_s)
    except ValueError as error:
        raise InputError(str(error)) from error
    with control:
        try:
            yield control
        except (ControlRefused, MalformedMessage) as error:
            raise InputError(str(error)) from error
        except ControlSilent as silence:
            raise WorkFailed(str(silence)) from silence


def _address(options: argparse.Namespace) -> str:
    if options.config is not None and options.control is not None:
        raise InputError("which line: expected either --control or --config")
    if options.control is not None:
        return str(options.control)
    if options.config is None:
        options.config = only_line()
    address = control_in(options.config)
    if address is None:
        raise InputError(
            f"{options.config}: control: found nothing, expected an address such as tcp://127.0.0.1:5561"
        )
    if _has_curve(options.config) and options.key is None:
        raise InputError(f"{options.config}: the line has a section curve; expected --key and --server-key")
    return address


def control_in(config: Path) -> str | None:
    """Give the control address that a line's config names; None when it names none.

    Raises:
        InputError: the config cannot be read, or the address is invalid.
    """
    address = _content(config).get("control")
    if address is None:
        return None
    if not isinstance(address, str):
        raise InputError(
            f"{config}: control: found {address!r}, expected an address such as tcp://127.0.0.1:5561"
        )
    return address_in(config, "control", address)


def _has_curve(config: Path) -> bool:
    return _content(config).get("curve") is not None


def _content(config: Path) -> dict[str, object]:
    from foundation.yaml_file import read_yaml

    return read_yaml(config, "the config of a line").content
