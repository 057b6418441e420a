import argparse
import asyncio
import logging
import sys
from importlib.metadata import version
from pathlib import Path

from daemon.environment import require_own_packages
from daemon.host.log import StderrHandler
from foundation.errors import GpuNotWorking, InputError


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd``.

    Returns:
        The exit code: 0 for done, 1 for a line given up or a GPU that does not answer, 2 for a wrong input.
    """
    arguments = command_line().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="inspectd: %(message)s", handlers=[StderrHandler()])
    try:
        require_own_packages()
        return _run(arguments.config, check=arguments.check)
    except InputError as error:
        logging.shutdown()  # what was logged before stands before it
        print(f"inspectd: {error}", file=sys.stderr)
        # The service tries again what may pass; a wrong config does not heal by itself.
        return 1 if isinstance(error, GpuNotWorking) else 2
    except KeyboardInterrupt:  # before the line took the signal over
        print("inspectd: interrupted", file=sys.stderr)
        return 130


def command_line() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="inspectd",
        description="Inspect the parts of one production line and publish a verdict on every frame.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the line's YAML config")
    parser.add_argument(
        "--check",
        action="store_true",
        help="check config, engine, calibration, address and cameras, then exit",
    )
    parser.add_argument("--version", action="version", version=f"inspectd {version('inspectd')}")
    return parser


def _run(path: Path, *, check: bool) -> int:
    from daemon.start import check_line, run_line

    if check:
        config = asyncio.run(check_line(path))
        print(f"{path}: in order: line {config.line}, cameras {', '.join(config.cameras)}")
        return 0
    return run_line(path)
