"""The commands of this room, each loaded while Ctrl-C is minded already: its modules take their time."""

from foundation.command import run_command

Arguments = list[str] | None
"""Of the command line; those of the process when None."""


def efficientad(arguments: Arguments = None) -> int:
    """Run ``efficientad``; returns the exit code."""
    return run_command("efficientad", lambda: _run("models.cli", arguments))


def train_model(arguments: Arguments = None) -> int:
    """Run ``train-model``; returns the exit code."""
    return run_command("train-model", lambda: _run("models.train_cli", arguments))


def evaluate_model(arguments: Arguments = None) -> int:
    """Run ``evaluate-model``; returns the exit code."""
    return run_command("evaluate-model", lambda: _run("models.evaluate_cli", arguments))


def import_anomalib(arguments: Arguments = None) -> int:
    """Run ``import-anomalib``; returns the exit code."""
    return run_command("import-anomalib", lambda: _run("models.import_cli", arguments))


def _run(module: str, arguments: Arguments) -> int:
    import os
    from importlib import import_module

    from foundation.errors import InputError

    # Threads that spin while they wait slow torch down twentyfold as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code: int = import_module(module).run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors", "onnx"):
            raise
        raise InputError(
            f"{error.name} is not installed; expected inspectd with [train], which a line's PC does not need"
        ) from error
    return code
