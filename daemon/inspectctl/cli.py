from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

COMMANDS = (
    "status",
    "tail",
    "replay",
    "audit",
    "reload",
    "select",
    "trigger",
    "camera",
    "golden",
    "selftest",
    "expect",
    "drift",
    "threshold",
    "record",
    "locate",
    "mask",
    "release",
    "update",
    "keygen",
    "install_service",
)
"""Each is a module of this package; its ``add`` adds a parser whose ``run`` default gives the exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectctl``, the operator's side of a running daemon.

    Returns:
        The exit code: 0 done, 1 the line is silent or not well, 2 wrong input, 130 interrupted.
    """
    return run_command("inspectctl", lambda: _run(argv), ends_unread=True)


def _run(argv: list[str] | None) -> int:
    options = command_line().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    import importlib

    from foundation.parser import Parser

    parser = Parser(prog="inspectctl", description="Look at a running inspectd, and steer it.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        importlib.import_module(f"daemon.inspectctl.{command}").add(commands)
    return parser
