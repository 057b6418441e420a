"""The command ``evaluate-model``: how well a model tells known defects from good parts."""

import argparse
import os
import sys

from foundation.errors import EngineFailed, InputError
from models.cli import add_evaluation_options, evaluate_command

PROG = "evaluate-model"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser().parse_args(argv)
    try:
        evaluate_command(options)
    except InputError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except EngineFailed as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(prog=PROG, description=evaluate_command.__doc__)
    add_evaluation_options(command)
    return command
