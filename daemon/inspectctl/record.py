import argparse
from pathlib import Path
from typing import Any

from daemon.inspectctl.values import count
from pictures.option_types import region


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "record",
        help="save a camera's frames as images to train on",
        description="Save the next frames of a camera as PNG images, cut out as the daemon cuts them out.",
    )
    parser.add_argument(
        "source",
        help="/dev/video0, a video file, an rtsp:// or http:// address, or simulated://?seed=1",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images go")
    parser.add_argument("--count", type=count, default=200, help="how many (default: %(default)s)")
    parser.add_argument(
        "--roi",
        type=region,
        metavar="X,Y,W,H",
        help="the part of the picture to keep; it is noted in the images, so that nothing cuts it out again",
    )
    parser.set_defaults(run=_record)


def _record(options: argparse.Namespace) -> int:
    from daemon.capture.drivers import CameraSettings
    from daemon.inspectctl.recording import record

    settings = CameraSettings(options.source, roi=options.roi)
    before = len(list(options.out.glob("frame-*.png")))
    saved = record(settings, options.out, options.count)
    beside = f", after {before} that were there" if before else ""
    print(f"saved {saved} of {options.count} frames in {options.out}{beside}")
    return 0 if saved == options.count else 1
