import argparse
from typing import Any

from daemon.inspectctl.control_options import add_control_options, line_control
from foundation.errors import printable

_TIMEOUT_S = 30.0


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "select",
        help="switch the line to another product",
        description="Have the line judge by the engine and calibration of another of its products, from the "
        "next frame on.",
    )
    parser.add_argument("product", help="name of the product in the line's config")
    add_control_options(parser)
    parser.set_defaults(run=_select)


def _select(options: argparse.Namespace) -> int:
    with line_control(options, timeout_s=_TIMEOUT_S) as control:
        print(printable(control.select(options.product)))
    return 0
