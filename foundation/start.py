"""The entry points of all commands: from the import of this module on, Ctrl-C ends in one line.

It is the first module of ours that a script imports, and needs hardly more than Python has loaded by itself.
"""

import os
import signal
import sys

_FRESH = signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _end(*_: object) -> None:
    """End at once: nothing was begun yet, and what is half imported cannot be trusted to end in order."""
    prog = sys.argv[0].rpartition("/")[2]
    os.write(2, f"{prog}: interrupted\n".encode(errors="backslashreplace"))
    os._exit(130)


COMMANDS = {
    "inspectd": ("daemon.cli", "main"),
    "inspectctl": ("daemon.inspectctl.cli", "main"),
    "inspectd-dashboard": ("dashboard.cli", "main"),
    "inspectd-plant": ("plant.cli", "main"),
    "inspectd-fleet": ("fleet.cli", "main"),
    "calibrate": ("calibration.cli", "main"),
    "build-engine": ("engine_build.cli", "main"),
    "train-model": ("models.commands", "train_model"),
    "evaluate-model": ("models.commands", "evaluate_model"),
    "import-anomalib": ("models.commands", "import_anomalib"),
    "efficientad": ("models.commands", "efficientad"),
}
"""Command → module and function that do its work."""


def _run(name: str) -> int:
    module, command = COMMANDS[name]
    __import__(module)
    # From here on ``run_command`` minds it. Where somebody ignores Ctrl-C, as nohup's kind, it stays so.
    if _FRESH:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code: int = getattr(sys.modules[module], command)()
    return code


def inspectd() -> int:
    """Run ``inspectd``."""
    return _run("inspectd")


def inspectctl() -> int:
    """Run ``inspectctl``."""
    return _run("inspectctl")


def calibrate() -> int:
    """Run ``calibrate``."""
    return _run("calibrate")


def build_engine() -> int:
    """Run ``build-engine``."""
    return _run("build-engine")


def train_model() -> int:
    """Run ``train-model``."""
    return _run("train-model")


def evaluate_model() -> int:
    """Run ``evaluate-model``."""
    return _run("evaluate-model")


def efficientad() -> int:
    """Run ``efficientad``."""
    return _run("efficientad")


def import_anomalib() -> int:
    """Run ``import-anomalib``."""
    return _run("import-anomalib")


def inspectd_dashboard() -> int:
    """Run ``inspectd-dashboard``."""
    return _run("inspectd-dashboard")


def inspectd_plant() -> int:
    """Run ``inspectd-plant``."""
    return _run("inspectd-plant")


def inspectd_fleet() -> int:
    """Run ``inspectd-fleet``."""
    return _run("inspectd-fleet")


if _FRESH:
    signal.signal(signal.SIGINT, _end)
