import argparse
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.by_option import add_by_option, by
from daemon.inspectctl.control_options import add_control_options, line_control
from foundation.errors import InputError, printable

if TYPE_CHECKING:
    from verdicts import Health

_TIMEOUT_S = 30.0


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "drift",
        help="show whether parts still look as calibrated, or accept how they look now",
        description="Show what has changed at each camera since the calibration: lamp, focus, position, "
        "dirt, or the parts themselves. Exit code 0 when nothing has, else 1. With accept, how the parts "
        "look now is the new normal; the journal keeps who said so.",
    )
    parser.add_argument("what", nargs="?", choices=["accept"], help="take how the parts look now for normal")
    parser.add_argument("--camera", metavar="NAME", help="at this camera alone (default: all)")
    add_by_option(parser, "accepts")
    add_control_options(parser)
    parser.set_defaults(run=_drift)


def _drift(options: argparse.Namespace) -> int:
    if options.by is not None and options.what is None:
        raise InputError("--by: found without accept, expected both")
    with line_control(options, timeout_s=_TIMEOUT_S) as control:
        if options.what is None:
            return _show(control.status(), options.camera)
        print(printable(control.accept_drift(options.camera, by=by(options))))
    return 0


def _show(health: "Health", camera: str | None) -> int:
    from daemon.inspectctl.status import drift_rows

    if health.drift is None:
        raise InputError(f"{health.line}: does not watch for drift; expected drift: {{}} in its config")
    if camera is not None and camera not in health.drift:
        known = ", ".join(health.drift)
        raise InputError(f"camera {camera!r}: unknown; expected one of {known}")
    shown = {name: drift for name, drift in health.drift.items() if camera in {None, name}}
    for row in drift_rows(shown):
        print(row.removeprefix("drift").strip())
    return 1 if any(drift.cause for drift in shown.values()) else 0
