"""The command ``evaluate-model``: how well a model tells known defects from good parts."""

import argparse

from foundation.parser import Parser
from models.cli import add_evaluation_options, evaluate_command

PROG = "evaluate-model"


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    evaluate_command(parser().parse_args(argv))
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = Parser(prog=PROG, description=evaluate_command.__doc__)
    add_evaluation_options(command)
    return command
