"""The command ``evaluate-model``: how well a model tells known defects from good parts."""

import argparse
import sys
from pathlib import Path

from foundation.files import check_folder
from foundation.parser import Parser
from models.option_types import natural
from models.options import add_data, add_seed
from pictures.option_types import region, tiles

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


def add_evaluation_options(evaluate: argparse.ArgumentParser) -> None:
    """Describe the options of ``evaluate_command``."""
    evaluate.add_argument(
        "model", type=Path, help="an ONNX graph, an engine, or a checkpoint of 'efficientad train'"
    )
    add_data(evaluate)
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    evaluate.add_argument(
        "--calibration", type=Path, metavar="FILE", help="made by calibrate: quantiles and threshold"
    )
    evaluate.add_argument(
        "--roi", type=region, metavar="X,Y,W,H", help="region of interest; default: that of the model"
    )
    evaluate.add_argument(
        "--tiles", type=tiles, metavar="SIZE,OVERLAP", help="of large pictures; default: those of the model"
    )
    evaluate.add_argument("--mask", type=Path, metavar="FILE", help="where to look; default: everywhere")
    evaluate.add_argument(
        "--bootstrap",
        type=natural,
        default=1000,
        metavar="N",
        help="test sets drawn for the confidence intervals; default 1000",
    )
    add_seed(evaluate, "the drawing")


def evaluate_command(options: argparse.Namespace) -> None:
    """Judge known good and defective parts and write metrics, tables and a picture sheet."""
    import json

    from foundation.files import write_whole
    from models.datasets.open import open_data_set
    from models.evaluation import report as evaluation_report
    from models.evaluation.evaluate import evaluate
    from models.evaluation.judge import open_judge
    from models.evaluation.operating_point import operating_point
    from models.evaluation.sheet import write_sheet

    check_folder(options.out, ["evaluation.md", "evaluation.json", "evaluation.png"])
    data_set = open_data_set(options.data, options.layout)
    judge = open_judge(options.model, options.calibration)
    evaluation = evaluate(
        judge,
        data_set,
        roi=options.roi,
        tiles=options.tiles,
        mask=options.mask,
        draws=options.bootstrap,
        seed=options.seed,
    )
    if lost := evaluation.judged.not_located:
        first = evaluation.judged.samples[lost[0]].image
        print(
            f"no part was found in {len(lost)} of {len(evaluation.judged.samples)} images, such as {first}; "
            "they were judged as they lie, while the line makes them faults or rejects",
            file=sys.stderr,
        )
    calibrated = judge.threshold is not None
    threshold = judge.threshold if judge.threshold is not None else evaluation.overall.f1_threshold
    point = operating_point(evaluation.judged, threshold, calibrated)
    data = options.data.absolute().name
    about = (evaluation, point, judge, data, str(data_set.root))
    page = evaluation_report.as_markdown(*about)
    options.out.mkdir(exist_ok=True)
    write_whole(
        options.out / "evaluation.json",
        json.dumps(evaluation_report.as_json(*about), indent=2).encode() + b"\n",
    )
    write_whole(options.out / "evaluation.md", page.encode())
    write_sheet(options.out / "evaluation.png", evaluation, point, f"{judge.name} on {data}")
    print(f"{page}\n{options.out}: evaluation.md, evaluation.json, evaluation.png")
