import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd``.

    Returns:
        The exit code: 0 for done, 1 for a line given up or what may mend itself, 2 for a wrong input.
    """
    # Its default ends the process, and until the line hears it there is nothing to reload. Everything else is
    # imported after this, as it takes a third of a second.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    import argparse
    import logging
    from importlib.metadata import version
    from pathlib import Path

    from daemon.host.log import StderrHandler
    from foundation.errors import InputError, printable

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
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="inspectd: %(message)s", handlers=[StderrHandler()])
    try:
        return _run(arguments.config, check=arguments.check)
    except InputError as error:
        logging.shutdown()  # what was logged before stands before it
        print(f"inspectd: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # the machine is out of something, such as descriptors or threads
        logging.shutdown()
        print(f"inspectd: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the line took the signal over
        print("inspectd: interrupted", file=sys.stderr)
        return 130


def _run(path: "Path", *, check: bool) -> int:
    from daemon.start import check_line, run_line

    if check:
        import asyncio

        config = asyncio.run(check_line(path))
        print(f"{path}: in order: line {config.line}, cameras {', '.join(config.cameras)}")
        return 0
    return run_line(path)
