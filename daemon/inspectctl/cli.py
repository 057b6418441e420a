import argparse
import importlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from daemon.inspectctl.terminal import complain
from foundation.errors import InputError

COMMANDS = (
    "status",
    "tail",
    "replay",
    "audit",
    "reload",
    "select",
    "record",
    "keygen",
    "install_service",
)
"""Each is a module of this package; its ``add`` adds a parser whose ``run`` default gives the exit code."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectctl``, the operator's side of a running daemon.

    Returns:
        The exit code: 0 done, 1 the line is silent or not well, 2 wrong input, 130 interrupted.
    """
    options = command_line().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except InputError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:  # such as `inspectctl tail | head`; nothing more may go there, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def command_line() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = _Parser(prog="inspectctl", description="Look at a running inspectd, and steer it.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        importlib.import_module(f"daemon.inspectctl.{command}").add(commands)
    return parser
