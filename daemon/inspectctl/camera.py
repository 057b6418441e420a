import argparse
from pathlib import Path
from typing import Any

from foundation.option_types import number
from pictures.option_types import region


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "camera", help="try a camera", description="Try a camera without a line that runs."
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    test = actions.add_parser(
        "test",
        help="show live what a camera, its trigger, presence and the locator say",
        description="Show live what presence or the trigger and the locator say about a camera's pictures, "
        "with rate, exposure, sharpness and the time used, until Ctrl-C.",
    )
    test.add_argument(
        "source",
        help="a device, file, address or simulated://belt; with --config the name of one of its cameras",
    )
    test.add_argument("--config", type=Path, metavar="FILE", help="a line's, whose camera is tried")
    test.add_argument("--roi", type=region, metavar="X,Y,W,H", help="the part of the picture to look at")
    test.add_argument(
        "--locate",
        type=Path,
        metavar="FILE",
        help="of 'inspectctl locate teach': look for the part in each picture that is taken",
    )
    test.add_argument(
        "--each", action="store_true", help="each picture shows a part: nobody looks whether one is present"
    )
    test.add_argument("--fps", type=number(0.0001, 10_000), metavar="N", help="pictures per second")
    test.add_argument("--min-area", type=number(above=0, most=1), metavar="SHARE", help="that a part covers")
    test.add_argument("--contrast", type=number(above=0, most=255), metavar="LEVELS", help="of a part")
    test.add_argument("--seconds", type=number(above=0, most=1e6), metavar="S", help="end after so long")
    test.set_defaults(run=_test)


def _test(options: argparse.Namespace) -> int:
    from daemon.inspectctl.camera_test import show

    show(_settings(options), options.seconds)
    return 0


def _settings(options: argparse.Namespace) -> Any:
    """Give the settings of the camera that is tried."""
    from dataclasses import replace

    from daemon.capture.drivers import CameraSettings, LocateSettings, Present
    from daemon.config import load_config
    from foundation.errors import InputError

    if options.config is None:
        given = {"min_area": options.min_area, "contrast": options.contrast}
        present = Present(**{key: value for key, value in given.items() if value is not None})
        if options.each and any(value is not None for value in given.values()):
            raise InputError("--each: found it beside --min-area or --contrast, which say what is present")
        locate = None if options.locate is None else LocateSettings(str(options.locate))
        return CameraSettings(
            options.source,
            roi=options.roi,
            fps=options.fps,
            present=None if options.each else present,
            locate=locate,
        )
    for option in ("roi", "locate", "each", "fps", "min_area", "contrast"):
        if getattr(options, option) not in {None, False}:
            name = option.replace("_", "-")
            raise InputError(f"--{name}: found it beside --config, expected it in {options.config}")
    cameras = load_config(options.config).cameras
    if options.source not in cameras:
        raise InputError(
            f"{options.config}: cameras: found no {options.source}, expected one of {', '.join(cameras)}"
        )
    settings = cameras[options.source]
    is_watched = settings.chooses or settings.locate is not None
    return settings if is_watched else replace(settings, present=Present())
