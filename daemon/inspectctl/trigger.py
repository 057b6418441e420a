import argparse
from typing import Any

from daemon.inspectctl.control_options import add_control_options, line_control
from foundation.errors import printable


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "trigger",
        help="have a camera's picture of a part judged",
        description="Say that a part is in view of a camera with trigger: {by: software}. The picture "
        "nearest in time is judged; its verdict carries the part's name.",
    )
    parser.add_argument("camera", help="name of the camera in the line's config")
    parser.add_argument("--part", metavar="ID", help="name of the part, such as the PLC's number of it")
    add_control_options(parser)
    parser.set_defaults(run=_trigger)


def _trigger(options: argparse.Namespace) -> int:
    with line_control(options) as control:
        print(printable(control.trigger(options.camera, options.part)))
    return 0
