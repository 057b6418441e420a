"""How well EfficientAD finds defects after so many minutes of training, one way of training against another.

    python benchmarks/accuracy_per_minute.py --data DIR --natural DIR --out FOLDER --methods xs-paper,xs-lite0

Each way is trained from nothing for each number of `--steps`, in turns, so that what else the machine does
hits all alike; a training of few steps has its own schedule, which a look into a longer one would not show.
The methods are those of accuracy.py: xs-paper and s-paper are EfficientAD as it was before position-aware
maps, density and backbones as teachers. The minutes are those of the training from the decoded images to the
model that can judge; the test images are judged after it.
"""

import argparse
import sys
from pathlib import Path

import accuracy
from detection.command_line import as_shown
from detection.held_back import with_good_test
from detection.task import Task
from tqdm import tqdm

from foundation.command import run_command
from foundation.option_types import whole_number

PROG = "accuracy_per_minute.py"

Row = tuple[str, str, int, float, float]
"""Method, product, steps, minutes, image AUROC."""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return run_command(PROG, lambda: run(parser().parse_args(words), as_shown(PROG, words)))


def run(options: argparse.Namespace, command: str) -> int:
    """Train and judge in turns, and write the page after each."""
    from detection.ours import SIZE

    from models import training_images
    from models.datasets.open import open_data_set

    methods = accuracy.chosen_methods(options)
    natural = training_images.load_natural(options.natural, SIZE)
    turns = [(data, steps, method) for data in options.data for steps in options.steps for method in methods]
    rows: list[Row] = []
    for data, steps, method in tqdm(turns, desc="turns", unit="training"):
        folder = options.out / data.name / str(steps)
        folder.mkdir(parents=True, exist_ok=True)
        data_set = open_data_set(with_good_test(data, folder / "held-back"))
        split = training_images.load(data_set, SIZE, None, options.seed)
        found = accuracy.measured(method, Task(data_set, split, natural, steps, options.seed, folder))
        if found["learned_in_s"] is not None:  # else an earlier run had begun it
            rows.append((method.name, data.name, steps, found["learned_in_s"] / 60, found["image_auroc"]))
        accuracy.write(options.markdown, as_markdown(rows, command))
    print(as_markdown(rows, command))
    return 0


def as_markdown(rows: list[Row], command: str) -> str:
    """Lay the rows out, those of one method and product together."""
    lines = [
        "# Image AUROC for minutes of training",
        "",
        f"Trained in turns on {accuracy.device()}, 256×256 pixels, one image a step. Written by",
        "",
        f"    {command}",
        "",
        "| | product | steps | minutes | image AUROC |",
        "|---|---|--:|--:|--:|",
    ]
    for method, data, steps, minutes, auroc in sorted(rows):
        lines.append(f"| {method} | {data} | {steps} | {minutes:.1f} | {auroc:.3f} |")
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog=PROG,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[accuracy.about_methods()],
    )
    made.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one product each")
    made.add_argument("--natural", type=Path, required=True, metavar="DIR", help="images of anything else")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for models")
    made.add_argument(
        "--steps",
        type=whole_number(1),
        nargs="+",
        default=[50, 100, 200, 400],
        help="of one image each (default: 50 100 200 400)",
    )
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    return made


if __name__ == "__main__":
    sys.exit(main())
