import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from daemon.capture.drivers.simulated.line import SimulatedLine
from daemon.capture.drivers.simulated.part import KINDS
from daemon.capture.drivers.simulated.sheet import moments, sheet
from foundation.errors import InputError
from foundation.files import write_whole
from pictures.frames import Frame

SMALL = (cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)
PROGRAM = "python -m daemon.capture.drivers.simulated"


def main(argv: list[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Write pictures of the simulated line to files."
    )
    parser.add_argument("--seed", type=int, default=0, help="which parts come (default: %(default)s)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sheet", type=Path, metavar="PNG", help="draw good parts and every kind of defect")
    what.add_argument("--belt", type=Path, metavar="PNG", help="draw a moving belt at six moments")
    what.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="write frames as DIR/good/000123.png, DIR/dent/000124.png, …",
    )
    images = parser.add_argument_group("with --images")
    images.add_argument("--count", type=int, default=200, help="number of frames (default: %(default)s)")
    images.add_argument(
        "--first", type=int, default=0, help="index of the first frame (default: %(default)s)"
    )
    images.add_argument(
        "--defects", type=float, default=0.0, help="share of defective parts (default: %(default)s)"
    )
    images.add_argument(
        "--kinds", choices=tuple(KINDS), default="local", help="of defects (default: %(default)s)"
    )
    images.add_argument("--size", default="512x512", help="width×height in pixels (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.sheet is not None:
            if arguments.seed < 0:
                raise InputError(f"--seed: found {arguments.seed}; expected 0 or more")
            _write(arguments.sheet, sheet(arguments.seed), SMALL)
        elif arguments.belt is not None:
            if arguments.seed < 0:
                raise InputError(f"--seed: found {arguments.seed}; expected 0 or more")
            _write(arguments.belt, moments(arguments.seed), SMALL)
        else:
            _write_images(arguments)
    except InputError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


def _write_images(arguments: argparse.Namespace) -> None:
    if arguments.count < 1:
        raise InputError(f"--count: found {arguments.count}; expected 1 or more")
    if arguments.first < 0:
        raise InputError(f"--first: found {arguments.first}; expected 0 or more")
    width, height = _size(arguments.size)
    line = SimulatedLine(
        seed=arguments.seed,
        defects=arguments.defects,
        kinds=arguments.kinds,
        width=width,
        height=height,
    )
    for index in tqdm(range(arguments.first, arguments.first + arguments.count), unit="part"):
        frame, part = line.frame(index)
        folder = arguments.images / (part.defect or "good")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
        _write(folder / f"{index:06d}.png", frame)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError(f"--size: found {text!r}; expected width and height like 640x480")
    return int(width), int(height)


def _write(path: Path, picture: Frame, options: Sequence[int] = ()) -> None:
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected a name that ends in .png")
    _, encoded = cv2.imencode(".png", picture, options)
    write_whole(path, encoded.tobytes())


if __name__ == "__main__":
    sys.exit(main())
