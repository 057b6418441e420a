from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from calibration.from_line import FromLine
    from engine_runtime.signatures import SigningKey

PROG = "calibrate"


def main(argv: list[str] | None = None) -> int:
    """Run ``calibrate`` and give its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    import json
    import sys

    arguments = command_line().parse_args(argv)
    from foundation.errors import EngineFailed, InputError
    from foundation.files import check_writable, write_whole

    target = _target(arguments)
    good, defects = _folders(arguments)
    shown: Path = arguments.report or target.with_suffix(".html")
    for file in (target, shown, shown.with_suffix(".json")):
        check_writable(file)
    if shown.suffix != ".html":
        raise InputError(f"--report: found {shown}, expected the name of a page, such as line3.html")
    if target.resolve() in {shown.resolve(), shown.with_suffix(".json").resolve()}:
        raise InputError(f"{target}: is where the page or its numbers go; name another file with -o")
    # What can be refused without them is refused at once: they take a second.
    from calibration.calibrate import calibrate
    from calibration.calibration_file import calibration_text
    from calibration.evidence import as_json, evidence
    from calibration.page import page
    from calibration.report import comparison, next_step, report, warnings

    key = None if arguments.sign is None else _signing_key(arguments.sign)
    from_line = None if arguments.camera is None else _collected(arguments)
    engine: Path = arguments.engine
    try:
        measured = calibrate(
            engine,
            good,
            defects,
            arguments.false_reject_rate,
            roi=arguments.roi,
            tiles=arguments.tiles,
            mask=arguments.mask,
            compare_with=arguments.compare,
            from_line=from_line,
        )
    except EngineFailed as error:
        raise EngineFailed(f"{error}; {target} was not written") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {target} was not written") from stop
    text = calibration_text(measured.calibration)
    if key is not None:
        key.sign(target, text)
    write_whole(target, text)
    found = evidence(measured)
    numbers = as_json(measured, found, str(engine), str(target))
    write_whole(shown.with_suffix(".json"), json.dumps(numbers, ensure_ascii=False, indent=1).encode())
    write_whole(shown, page(target, engine, measured, found).encode())
    print(report(target, measured))
    for line in comparison(measured):
        print(line)
    for line in [*warnings(measured), *_unsigned(target, signed=key is not None)]:
        print(f"{PROG}: warning: {line}", file=sys.stderr)
    print(f"the evidence: {shown}, and {shown.with_suffix('.json').name} beside it")
    print(next_step(engine, target, measured))
    return 0


def _target(arguments: "argparse.Namespace") -> "Path":
    """Give where the calibration goes; with a line, what its config says stands in for what is not given."""
    from foundation.errors import InputError

    if arguments.camera is not None:
        from calibration.from_line import fill_in

        fill_in(arguments)
    for option in ("product", "count", "with_rejects", "key", "server_key"):
        if arguments.camera is None and getattr(arguments, option):
            raise InputError(f"--{option.replace('_', '-')}: found without --camera, expected both")
    if arguments.engine is None:
        raise InputError("model.engine: found nothing, expected an engine, or --camera LINE.yaml")
    engine: Path = arguments.engine
    target: Path = arguments.output or engine.with_suffix(".calibration.yaml")
    if target.resolve() == engine.resolve():
        raise InputError(f"{target}: is the engine itself; name another file with -o")
    return target


def _collected(arguments: "argparse.Namespace") -> "FromLine":
    from calibration.from_line import collect

    return collect(arguments)


def _folders(arguments: "argparse.Namespace") -> "tuple[Path, Path | None]":
    """Give the folders of good and of defective images."""
    from foundation.errors import InputError

    if arguments.camera is not None and arguments.from_labels is not None:
        raise InputError("which images: expected --camera or --from-labels, not both")
    labels: Path | None = arguments.from_labels
    if (labels is None) == (arguments.good is None) or (labels is not None and arguments.defects is not None):
        raise InputError(
            "which images: expected --good DIR, with --defects DIR or not, or --from-labels DIR, or --camera "
            "LINE.yaml"
        )
    if labels is None:
        return arguments.good, arguments.defects
    if not (labels / "good").is_dir():
        raise InputError(
            f"{labels}: found no folder good in it, expected what the operators' page writes from labels"
        )
    defects = labels / "defects"
    return labels / "good", defects if defects.is_dir() else None


def _signing_key(file: "Path") -> "SigningKey":
    from engine_runtime.signatures import SigningKey

    return SigningKey(file)


def _unsigned(target: "Path", *, signed: bool) -> list[str]:
    from engine_runtime.signatures import signature_of

    beside = signature_of(target)
    if signed or not beside.exists():
        return []
    return [f"{beside}: is the signature of an earlier calibration: sign this one, too (--sign KEY)"]


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from pathlib import Path

    from foundation.option_types import file_name, share, whole_number
    from foundation.parser import Parser
    from pictures.option_types import region, tiles

    parser = Parser(
        prog=PROG,
        description="Measure on good parts how an engine's anomaly maps are scaled and from which score on "
        "a part is rejected.",
    )
    parser.add_argument(
        "engine", type=file_name, nargs="?", metavar="model.engine", help="written by build-engine"
    )
    parser.add_argument(
        "--good",
        type=Path,
        metavar="DIR",
        help="images of good parts the model was not trained on; with --camera, where they are collected",
    )
    parser.add_argument(
        "--camera",
        type=Path,
        metavar="LINE.yaml",
        help="collect good parts from the running line of this config first, out of its archive (which needs "
        "the key sample), and calibrate its engine on them, beside the calibration that it has",
    )
    parser.add_argument(
        "--count",
        type=whole_number(20),
        metavar="N",
        help="with --camera: how many parts (default: what the wanted rate needs)",
    )
    parser.add_argument(
        "--with-rejects",
        action="store_true",
        help="with --camera: only good parts run now, so rejected ones count, too",
    )
    parser.add_argument(
        "--product", metavar="NAME", help="with --camera: of several (default: the first one)"
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="with --camera: your secret key, for a line that encrypts"
    )
    parser.add_argument(
        "--server-key", type=Path, metavar="FILE", help="with --camera: the public key of such a line"
    )
    parser.add_argument(
        "--defects", type=Path, metavar="DIR", help="images of defective parts, to report how many are caught"
    )
    parser.add_argument(
        "--from-labels",
        type=Path,
        metavar="DIR",
        help="instead of both: what the operators' page wrote from people's labels, with folders good and "
        "defects",
    )
    parser.add_argument(
        "--false-reject-rate",
        type=share(1e-6, 0.1),
        default=0.001,
        metavar="RATE",
        help="share of good parts that may be rejected, such as 0.001 or 0.1%%, up to 10%% (default: 0.1%%)",
    )
    parser.add_argument(
        "--roi",
        type=region,
        metavar="x,y,w,h",
        help="region of interest in the images (default: that of the training)",
    )
    parser.add_argument(
        "--tiles",
        type=tiles,
        metavar="size,overlap",
        help="cut the region into tiles, each of which the engine sees as one frame "
        "(default: those of the training)",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="where to look, of 'inspectctl mask suggest' or 'mask draw' (default: everywhere)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="OLD",
        help="an earlier calibration: tell what would change, image by image if it is of this engine",
    )
    parser.add_argument(
        "--report",
        type=file_name,
        metavar="FILE",
        help="the page that shows what the threshold rests on, with its numbers as .json beside it "
        "(default: the "
        "calibration's name with .html)",
    )
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign the calibration, for lines with trusted_keys: an Ed25519 private key in PEM",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file_name,
        metavar="FILE",
        help="default: the engine's name with .calibration.yaml; with --camera, new- and the name of the "
        "line's own",
    )
    return parser
