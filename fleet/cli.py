from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse
    from datetime import date

    from foundation.parser import Parser

PROG = "inspectd-fleet"
_REPORTS = {
    "rejects": "parts, rejects and faults by line, product and day",
    "places": "where on the part rejects have their peak, in squares of 64 pixels",
    "latency": "from capture to verdict, and to the hub, by line and day",
    "drift": "scores of passes by day, against the first day and against other lines with the same model",
    "extent": "how many verdicts there are, from when to when, by line",
    "missing": "verdicts that never came, by line and boot",
    "part": "all verdicts of one part, by its id",
}


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectd-fleet`` and give its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    arguments = command_line().parse_args(argv)
    import logging

    logging.basicConfig(level=logging.INFO, format=f"{PROG}: %(message)s")
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # what it logs, an exception says too
    code: int = arguments.run(arguments)
    return code


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from importlib.metadata import version
    from pathlib import Path

    from foundation.parser import Parser

    parser = Parser(prog=PROG, description="Bring the verdicts of many lines into one place.")
    parser.add_argument("--version", action="version", version=f"{PROG} {version('inspectd')}")
    parser.add_argument(
        "--schema", action=_print_schema(), nargs=0, help="print the config's JSON schema, then exit"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, text in (
        ("forward", _forward, "take what lines have journaled to the hub, and acknowledge what it has"),
        ("lake", _lake, "take what comes into the hub to a lake of Parquet files, each verdict once"),
        (
            "pictures",
            _pictures,
            "take what lines of this machine have archived to a store that speaks S3, each picture once",
        ),
        (
            "status",
            _status,
            "tell how the others fare on this machine; exit code 1: something is wrong",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("--config", type=Path, metavar="FILE", required=True, help="the YAML config")
        command.set_defaults(run=run)
        if name != "status":
            command.add_argument("--check", action="store_true", help="check all that it needs, then exit")
    _add_picture(commands)
    _add_report(commands)
    return parser


def _add_picture(commands: "argparse._SubParsersAction[Parser]") -> None:
    from pathlib import Path

    text = "fetch the pictures of a verdict from the store"
    picture = commands.add_parser("picture", help=text, description=text.capitalize() + ".")
    picture.set_defaults(run=_picture)
    picture.add_argument("--config", type=Path, metavar="FILE", required=True, help="the YAML config")
    picture.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)")
    picture.add_argument("line", metavar="LINE", help="its name")
    picture.add_argument("verdict", metavar="BOOT:SEQ", help="as report part shows them")


def _add_report(commands: "argparse._SubParsersAction[Parser]") -> None:
    from pathlib import Path

    text = "tell what the lake says"
    report = commands.add_parser("report", help=text, description=text.capitalize() + ".")
    report.set_defaults(run=_report)
    where = report.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="the YAML config that names the lake")
    where.add_argument("--lake", type=Path, metavar="DIR", help="its folder")
    report.add_argument("--plant", metavar="NAME", help="of this plant alone")
    report.add_argument("--line", metavar="NAME", help="of this line alone")
    report.add_argument(
        "--since", type=_day, metavar="DAY", help="from this day on, such as 2026-01-31, in UTC"
    )
    report.add_argument("--until", type=_day, metavar="DAY", help="up to this day")
    report.add_argument("--json", action="store_true", help="one JSON object for each row")
    kinds = report.add_subparsers(title="reports", required=True, metavar="REPORT", dest="kind")
    for name, what in _REPORTS.items():
        kind = kinds.add_parser(name, help=what, description=what.capitalize() + ".")
        if name == "part":
            kind.add_argument("part", metavar="ID", help="of the part")


def _print_schema() -> "type[argparse.Action]":
    import argparse

    class PrintSchema(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
            from fleet.schema import schema_text

            print(schema_text(), end="")
            parser.exit()

    return PrintSchema


def _day(text: str) -> "date":
    import argparse
    from datetime import date

    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"found {text!r:.40}, expected a day such as 2026-01-31") from error


def _forward(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet
    from fleet.forward import check, forward

    fleet = load_fleet(arguments.config)
    return check(fleet) if arguments.check else forward(fleet)


def _lake(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet

    fleet = load_fleet(arguments.config)
    _require_lake()
    from fleet.lake import check, lake

    return check(fleet) if arguments.check else lake(fleet)


def _pictures(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet
    from fleet.pictures import check, pictures

    fleet = load_fleet(arguments.config)
    return check(fleet) if arguments.check else pictures(fleet)


def _picture(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet
    from fleet.pictures import fetch

    return fetch(load_fleet(arguments.config), arguments.line, arguments.verdict, arguments.out)


def _report(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet

    fleet = None if arguments.config is None else load_fleet(arguments.config)
    folder = arguments.lake if fleet is None else fleet.lake.folder
    _require_lake()
    from fleet.report import Choice, report
    from fleet.store import Store

    choice = Choice(
        arguments.plant, arguments.line, arguments.since, arguments.until, getattr(arguments, "part", None)
    )
    has_pictures = fleet is not None and fleet.config.pictures is not None
    store = Store(fleet) if fleet is not None and has_pictures and arguments.kind == "part" else None
    return report(folder, arguments.kind, choice, as_json=arguments.json, store=store)


def _require_lake() -> None:
    from fleet.hubs.open import require

    for package in ("deltalake", "pyarrow", "duckdb"):
        require(package, package)


def _status(arguments: "argparse.Namespace") -> int:
    from fleet.config import load_fleet
    from fleet.status import print_status

    return print_status(load_fleet(arguments.config).state)
