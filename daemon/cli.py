import argparse
import asyncio
import logging
import sys
from importlib.metadata import version
from pathlib import Path

from engine_runtime.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd``; the exit code is 0 for done, 1 for a line given up, 2 for a wrong input."""
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
    logging.basicConfig(level=logging.INFO, format="inspectd: %(message)s", stream=sys.stderr)
    try:
        return asyncio.run(_inspect(arguments.config, check=arguments.check))
    except InputError as error:
        print(f"inspectd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the line took the signal over
        print("inspectd: interrupted", file=sys.stderr)
        return 130


async def _inspect(path: Path, *, check: bool) -> int:
    from calibration.calibration_file import load_calibration
    from daemon.check import check_cameras
    from daemon.config import load_config
    from daemon.line import Line
    from daemon.publisher import Publisher
    from engine_runtime.engine import Engine
    from engine_runtime.engine_file import read_manifest
    from engine_runtime.open import open_engine

    def open_again() -> Engine:
        return open_engine(config.engine, threads=config.threads)

    config = load_config(path)
    calibration = load_calibration(config.calibration, read_manifest(config.engine).payload_sha256)
    for name, camera in config.cameras.items():
        # Scores of another crop have another distribution: the threshold would mean nothing.
        if calibration.roi is not None and camera.roi != calibration.roi:
            raise InputError(
                f"{path}: cameras.{name}.roi: found {camera.roi}, expected {calibration.roi}, "
                f"with which {config.calibration} was made"
            )
    publisher = Publisher(config.publish)  # before anything slow: a second daemon must fail at once
    engines = [open_again() for _ in range(config.lanes)]
    if not check:
        return await Line(config, calibration, engines, open_again, publisher).run()
    await check_cameras(config.cameras, engines[0].manifest.input_size)
    publisher.close()
    print(
        f"{path}: in order: line {config.line}, cameras {', '.join(config.cameras)}, engine {config.engine}"
    )
    return 0
