import argparse
from typing import Any

from daemon.inspectctl.by_option import add_by_option, by
from daemon.inspectctl.control_options import add_control_options, line_control
from daemon.inspectctl.values import seconds
from foundation.errors import printable

_TIMEOUT_S = 10.0


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "expect",
        help="send a known bad part through the line, and see whether it is rejected",
        description="Announce a known bad part to the running line and wait until it is rejected. Exit code "
        "0 when it was, 1 when it was not; the journal keeps either, with who asked.",
    )
    parser.add_argument("what", choices=["defect"], help="what the part has")
    parser.add_argument("--camera", metavar="NAME", help="which camera will see it (default: any)")
    parser.add_argument(
        "--part", metavar="ID", help="the part's name, where the line knows names (default: any part)"
    )
    parser.add_argument(
        "--within",
        type=seconds,
        default=30.0,
        metavar="TIME",
        help="until when it must have been rejected, such as 30 s or 2 min (default: 30 s)",
    )
    add_by_option(parser, "sends it")
    add_control_options(parser)
    parser.set_defaults(run=_expect)


def _expect(options: argparse.Namespace) -> int:
    with line_control(options) as control:
        control.status()  # so that nobody sends a part through a line that does not run
    with line_control(options, timeout_s=_TIMEOUT_S) as control:
        said = control.expect(options.within, camera=options.camera, part=options.part, by=by(options))
    print(printable(said))
    return 0 if said.startswith("passed") else 1
