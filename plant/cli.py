from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse

PROG = "inspectd-plant"


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd-plant`` and give its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = command_line().parse_args(argv)
    import logging

    logging.basicConfig(level=logging.INFO, format=f"{PROG}: %(message)s")
    # What concerns people is told by whoever uses it.
    for library in ("pymodbus", "paho", "asyncio", "asyncua", "asyncuagds"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if arguments.schema:
        from plant.schema import schema_text

        print(schema_text(), end="")
        return 0
    from plant.config import load_plant
    from plant.run import check, run

    plant = load_plant(arguments.config)
    return check(plant) if arguments.check else run(plant)


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from importlib.metadata import version
    from pathlib import Path

    from foundation.parser import Parser

    parser = Parser(
        prog=PROG,
        description="Bring the verdicts of one line into the plant: metrics, MQTT, Modbus, OPC UA, the gate.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="the YAML config of the line's plant side")
    what.add_argument(
        "--schema", action="store_true", help="print the config's JSON schema, for editors, then exit"
    )
    parser.add_argument(
        "--check", action="store_true", help="check config, files, keys and packages, then exit"
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {version('inspectd')}")
    return parser
