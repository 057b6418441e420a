from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse

PROG = "inspectd-dashboard"


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd-dashboard`` and give its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = command_line().parse_args(argv)
    import logging

    from dashboard.config import load_config, of_one_line
    from foundation.errors import InputError

    logging.basicConfig(level=logging.INFO, format=f"{PROG}: %(message)s")
    if (arguments.config is None) == (arguments.line is None):
        raise InputError("which line: expected either --config or --line")
    config = of_one_line(arguments.line) if arguments.config is None else load_config(arguments.config)
    if arguments.user is not None:
        from dashboard.users import set_user

        return set_user(config, arguments.user, arguments.role)
    _require_packages()
    from dashboard.serve import check, serve

    return check(config) if arguments.check else serve(config)


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from importlib.metadata import version
    from pathlib import Path

    from foundation.parser import Parser

    parser = Parser(
        prog=PROG,
        description="Serve the page on which operators watch lines, judge rejects and choose thresholds.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the dashboard's YAML config")
    parser.add_argument(
        "--line", type=Path, metavar="FILE", help="the config of one line, shown to this machine alone"
    )
    parser.add_argument("--check", action="store_true", help="check config, certificate and files, then exit")
    parser.add_argument(
        "--user", metavar="NAME", help="add a user, or give one another password, then exit; see --role"
    )
    parser.add_argument(
        "--role",
        choices=("look", "judge", "change"),
        default="look",
        help="of --user: may look, also judge rejects, or also change thresholds and products",
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {version('inspectd')}")
    return parser


def _require_packages() -> None:
    """Say in one line which package is missing, and how it comes.

    Raises:
        InputError: the extra ``dashboard`` is not installed.
    """
    from importlib.util import find_spec

    from foundation.errors import InputError

    missing = [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: not installed here; expected the extra dashboard: "
            "pip install 'inspectd[dashboard]'"
        )
