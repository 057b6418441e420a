"""The option ``--schema``: prints a schema and ends, as ``--version`` does."""

import argparse
import sys


class PrintSchema(argparse.Action):
    """Prints the JSON schema of one of the two YAML files."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from daemon.schema import schema_text

        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        print(schema_text("calibration" if values == "calibration" else "config"), end="")
        parser.exit()
