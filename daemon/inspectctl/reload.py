import argparse
from typing import Any

from daemon.inspectctl.control_options import add_control_options, line_control
from foundation.errors import printable

_TIMEOUT_S = 120.0  # engines are loaded and tried out before the line takes them


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "reload",
        help="have the line read its config again",
        description="Have the line read its config, engine and calibration again and change over between "
        "two frames. If one of them is wrong, the command says so and the line goes on as it was.",
    )
    add_control_options(parser)
    parser.set_defaults(run=_reload)


def _reload(options: argparse.Namespace) -> int:
    with line_control(options) as control:
        control.status()  # so that nobody waits for long for a line that does not run
    with line_control(options, timeout_s=_TIMEOUT_S) as control:
        print(printable(control.reload()))
    return 0
