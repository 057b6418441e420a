"""What each map of EfficientAD is worth, on networks that are trained already.

    python benchmarks/readouts.py --data DIR [DIR …] --models FOLDER --markdown docs/benchmarks/readouts.md

FOLDER is the --out of accuracy.py, which trained them: FOLDER/<product>/xs-seed-0.pt and so on, with
`--method xs-lite0` xs-lite0-seed-0.pt. `efficientad ablate` trains anew for each ingredient; here all rows
are read out of the same networks, so that their differences are those of the maps alone.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from detection.command_line import as_shown
from tqdm import tqdm

from foundation.command import run_command
from foundation.errors import InputError
from foundation.files import write_whole

PROG = "readouts.py"

OFF = {"position_aware": False, "density": False, "whole": False}
ROWS = {
    "the paper's maps": OFF,
    "+ position-aware": {**OFF, "position_aware": True},
    "+ density": {"whole": False},
    "+ the picture as a whole = ours": {},
    "without position-aware": {"position_aware": False},
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return run_command(PROG, lambda: run(parser().parse_args(words), as_shown(PROG, words)))


def run(options: argparse.Namespace, command: str) -> int:
    """Measure all rows on all products and write the page.

    Raises:
        InputError: a model is missing.
    """
    found: dict[str, dict[str, list[tuple[float, float | None]]]] = {row: {} for row in ROWS}
    for data in options.data:
        named = f"{options.method}-seed-*.pt"
        models = sorted((options.models / data.name).glob(named))[: options.seeds]
        if not models:
            raise InputError(f"{options.models / data.name}: holds no {named}, which accuracy.py trains")
        for model in tqdm(models, desc=data.name, unit="model"):
            for row, metrics in measured(model, data).items():
                found[row].setdefault(data.name, []).append(metrics)
    page = as_markdown(found, options.method, command)
    if options.markdown is not None:
        write_whole(options.markdown, page.encode())
    print(page)
    return 0


def measured(model: Path, data: Path) -> dict[str, tuple[float, float | None]]:
    """Give image AUROC and AU-PRO of all rows, read out of one model."""
    from models import training_images
    from models.datasets.open import open_data_set
    from models.efficientad.ablation import read_out
    from models.efficientad.checkpoint import load_model
    from models.evaluation.evaluate import evaluate
    from models.evaluation.judge import CheckpointJudge

    trained = load_model(model)[0]
    data_set = open_data_set(data)
    split = training_images.load(data_set, trained.image_size, trained.roi, trained.seed)
    metrics = {}
    for row, settings in ROWS.items():
        judge = CheckpointJudge(model)
        read_out(judge, replace(trained, **settings), split.validation)  # type: ignore[arg-type]
        overall = evaluate(judge, data_set, draws=0).overall
        overlap = overall.overlap.get(0.3)
        metrics[row] = overall.image_auroc.value, None if overlap is None else overlap.estimate.value
    return metrics


def as_markdown(
    found: dict[str, dict[str, list[tuple[float, float | None]]]], method: str, command: str
) -> str:
    """Lay the rows out, image AUROC and AU-PRO in each cell."""
    data = list(next(iter(found.values())))
    lines = [
        f"# What each map is worth: {called(method)}",
        "",
        "All rows are read out of the same trained networks. Image AUROC / AU-PRO 0.3, means over the seeds,"
        " whose number stands beside the product; the last column is the mean image AUROC. Written by",
        "",
        f"    {command}",
        "",
        "| | " + " | ".join(f"{name} ({len(found[next(iter(found))][name])})" for name in data) + " | mean |",
        "|---|" + " --: |" * (len(data) + 1),
    ]
    for row, products in found.items():
        cells = []
        for values in products.values():
            overlaps = [overlap for _, overlap in values if overlap is not None]
            shown = f"{np.mean(overlaps):.3f}" if overlaps else "–"
            cells.append(f"{np.mean([auroc for auroc, _ in values]):.3f} / {shown}")
        mean = np.mean([np.mean([auroc for auroc, _ in values]) for values in products.values()])
        lines.append(f"| {row} | {' | '.join(cells)} | {mean:.3f} |")
    return "\n".join(lines) + "\n"


def called(method: str) -> str:
    """Name a method of accuracy.py as its page does."""
    size, _, teacher = method.partition("-")
    return size.upper() + (f" with {teacher} as teacher" if teacher else "")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one product each")
    made.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="of accuracy.py")
    made.add_argument("--method", default="xs", help="of accuracy.py, xs or xs-lite0 (default: %(default)s)")
    made.add_argument("--seeds", type=int, default=3, help="the most of each product (default: %(default)s)")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    return made


if __name__ == "__main__":
    sys.exit(main())
