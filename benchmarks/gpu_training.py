"""EfficientAD as its paper trains it, in one command on a machine with a GPU.

    python benchmarks/gpu_training.py --photographs DIR --natural DIR --data DIR [DIR …] --out FOLDER

First the teachers of S and M are distilled from a Wide ResNet-101 for 60,000 steps of 16 crops; then every
size is trained on every product for 70,000 steps, with three seeds, and measured like all rows of
docs/benchmarks/accuracy.md. What is finished in FOLDER is kept: a run that was cut off goes on there, a
teacher from its beginning. The teachers are FOLDER/teacher-s.safetensors and so on, the table is
FOLDER/accuracy.md.
"""

import argparse
import sys
from pathlib import Path

import accuracy

from foundation.command import run_command
from foundation.errors import InputError
from foundation.files import check_folder
from foundation.option_types import whole_number
from models.option_types import SIZES

PROG = "gpu_training.py"
positive = whole_number(1)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    return run_command(PROG, lambda: run(parser().parse_args(argv)))


def run(options: argparse.Namespace) -> int:
    """Distil the teachers that are missing, and fill the table.

    Raises:
        InputError: there is no GPU, or a folder cannot be written.
    """
    import torch

    if not (options.cpu or torch.cuda.is_available()):
        raise InputError(
            "no GPU was found, and on a CPU this takes months; --cpu with few steps shows whether it runs"
        )
    check_folder(options.out, ["accuracy.md", "accuracy.json"])
    options.out.mkdir(exist_ok=True)
    teachers = []
    for size in options.sizes:
        file = options.out / f"teacher-{size}.safetensors"
        teachers += [f"--teacher-{size}", str(file)]
        if not file.exists() and (failed := distil(size, file, options)):
            return failed
    return accuracy.main(
        [
            *(
                "--data",
                *map(str, options.data),
                "--natural",
                str(options.natural),
                "--out",
                str(options.out),
            ),
            *("--methods", ",".join(options.sizes), "--steps", str(options.steps), *teachers),
            *("--seeds", str(options.seeds), "--json", str(options.out / "accuracy.json")),
            *("--markdown", str(options.out / "accuracy.md")),
        ]
    )


def distil(size: str, file: Path, options: argparse.Namespace) -> int:
    """Make a teacher as ``efficientad distill`` does, and give its exit code."""
    from models.commands import efficientad

    steps, batch = str(options.distil_steps), str(options.batch)
    images = ["--images", str(options.photographs), "--out", str(file), "--size", size]
    return efficientad(
        ["distill", "--backbone", options.backbone, *images, "--steps", steps, "--batch", batch]
    )


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--photographs", type=Path, required=True, metavar="DIR", help="to distil from")
    made.add_argument("--natural", type=Path, required=True, metavar="DIR", help="for the penalty")
    made.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="one product each")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for teachers and the table")
    made.add_argument(
        "--backbone",
        default="torchvision:wide_resnet101_2",
        help="as of efficientad distill (default: %(default)s, the paper's)",
    )
    made.add_argument("--sizes", nargs="+", choices=SIZES, default=["s", "m"], help="default: s m")
    made.add_argument("--distil-steps", type=positive, default=60_000, help="default: %(default)s")
    made.add_argument("--batch", type=positive, default=16, help="crops of a step (default: %(default)s)")
    made.add_argument("--steps", type=positive, default=70_000, help="of training (default: %(default)s)")
    made.add_argument("--seeds", type=positive, default=3, help="default: %(default)s")
    made.add_argument("--cpu", action="store_true", help="go on without a GPU")
    return made


if __name__ == "__main__":
    sys.exit(main())
