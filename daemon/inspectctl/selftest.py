import argparse
from typing import Any

from daemon.inspectctl.control_options import add_control_options, line_control
from foundation.errors import printable

_TIMEOUT_S = 300.0  # a sample waits for a pause between two parts


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "selftest",
        help="have the line judge its golden samples now",
        description="Have the running line judge the golden samples of its product, between two parts. Exit "
        "code 0 when each got its verdict and its score, 1 when one did not; the journal has the numbers.",
    )
    add_control_options(parser)
    parser.set_defaults(run=_selftest)


def _selftest(options: argparse.Namespace) -> int:
    with line_control(options) as control:
        control.status()  # so that nobody waits for long for a line that does not run
    with line_control(options, timeout_s=_TIMEOUT_S) as control:
        said = control.selftest()
    print(printable(said))
    return 0 if said.startswith("passed") else 1
