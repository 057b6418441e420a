"""The commands of this room, each loaded while Ctrl-C is minded already: its modules take their time."""

from foundation.command import run_command


def efficientad() -> int:
    """Run ``efficientad``."""
    return run_command("efficientad", lambda: _main("models.cli"))


def train_model() -> int:
    """Run ``train-model``."""
    return run_command("train-model", lambda: _main("models.train_cli"))


def evaluate_model() -> int:
    """Run ``evaluate-model``."""
    return run_command("evaluate-model", lambda: _main("models.evaluate_cli"))


def _main(module: str) -> int:
    from importlib import import_module

    code: int = import_module(module).main()
    return code
