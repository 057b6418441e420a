import argparse
import sys
from pathlib import Path

from foundation.errors import EngineFailed, InputError
from foundation.option_types import share
from foundation.terminal import accept_any_text

PROG = "calibrate"


def main(argv: list[str] | None = None) -> int:
    """Run ``calibrate`` and give its exit code."""
    arguments = command_line().parse_args(argv)
    accept_any_text()
    engine: Path = arguments.engine
    target: Path = arguments.output or engine.with_suffix(".calibration.yaml")
    from calibration.calibrate import calibrate
    from calibration.calibration_file import write_calibration
    from calibration.report import report, warnings
    from pictures.frames import parse_roi
    from pictures.tiles import parse_tiles

    try:
        try:
            roi = parse_roi(arguments.roi) if arguments.roi is not None else None
        except ValueError as error:
            raise InputError(f"--roi: {error}") from error
        try:
            tiles = parse_tiles(arguments.tiles) if arguments.tiles is not None else None
        except ValueError as error:
            raise InputError(f"--tiles: {error}") from error
        if target.resolve() == engine.resolve():
            raise InputError(f"{target}: is the engine itself; name another file with -o")
        measured = calibrate(
            engine, arguments.good, arguments.defects, arguments.false_reject_rate, roi=roi, tiles=tiles
        )
        write_calibration(target, measured.calibration)
    except InputError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except EngineFailed as error:
        print(f"{PROG}: {error}; {target} was not written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: stopped; {target} was not written", file=sys.stderr)
        return 130
    print(report(target, measured))
    for line in warnings(measured):
        print(f"{PROG}: warning: {line}", file=sys.stderr)
    return 0


def command_line() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Measure on good parts how an engine's anomaly maps are scaled and from which score on "
        "a part is rejected.",
    )
    parser.add_argument("engine", type=Path, metavar="model.engine", help="written by build-engine")
    parser.add_argument(
        "--good",
        type=Path,
        required=True,
        metavar="DIR",
        help="images of good parts the model was not trained on",
    )
    parser.add_argument(
        "--defects", type=Path, metavar="DIR", help="images of defective parts, to report how many are caught"
    )
    parser.add_argument(
        "--false-reject-rate",
        type=share(1e-6, 0.1),
        default=0.001,
        metavar="RATE",
        help="share of good parts that may be rejected, such as 0.001 or 0.1%%, up to 10%% (default: 0.1%%)",
    )
    parser.add_argument(
        "--roi", metavar="x,y,w,h", help="region of interest in the images (default: that of the training)"
    )
    parser.add_argument(
        "--tiles",
        metavar="size,overlap",
        help="cut the region into tiles, each of which the engine sees as one frame "
        "(default: those of the training)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: the engine's name with .calibration.yaml"
    )
    return parser
