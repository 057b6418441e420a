import signal
from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd``.

    Returns:
        The exit code: 0 for done, 1 for a line given up or what may mend itself, 2 for a wrong input.
    """
    # Its default ends the process, and until the line hears it there is nothing to reload. Everything else is
    # imported after this, as it takes a third of a second.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return run_command("inspectd", lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    import logging

    from daemon.host.environment import require_own_packages
    from daemon.host.log import StderrHandler

    arguments = command_line().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="inspectd: %(message)s", handlers=[StderrHandler()])
    try:
        require_own_packages()
        if arguments.check:
            return _check(arguments.config)
        from daemon.start import run_line

        return run_line(arguments.config)
    except BaseException:
        logging.shutdown()  # what was logged before stands before it
        raise


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from importlib.metadata import version
    from pathlib import Path

    from daemon.print_schema import PrintSchema
    from foundation.parser import Parser

    parser = Parser(
        prog="inspectd",
        description="Inspect the parts of one production line and publish a verdict on every frame.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the line's YAML config")
    parser.add_argument(
        "--check",
        action="store_true",
        help="check config, addresses, journal, archive, engine, calibration and cameras, then exit;"
        " also beside the running line",
    )
    parser.add_argument(
        "--schema",
        action=PrintSchema,
        choices=("config", "calibration"),
        help="print the JSON schema of one of the two YAML files, for editors, then exit",
    )
    parser.add_argument("--version", action="version", version=f"inspectd {version('inspectd')}")
    return parser


def _check(path: "Path") -> int:
    import asyncio

    from daemon.check import check_line

    config, running, not_tried = asyncio.run(check_line(path))
    print(f"{path}: in order: line {config.line}, cameras {', '.join(config.cameras)}")
    if running:
        print(f"{path}: line {config.line} runs now, and has its addresses itself")
    for what in not_tried:
        print(f"{path}: {what}")
    return 0
