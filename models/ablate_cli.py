"""``efficientad ablate``: what each ingredient is worth."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError
from foundation.files import check_folder
from models.option_types import SIZES, positive
from models.options import (
    add_batch,
    add_checkpoints,
    add_data,
    add_image_size,
    add_penalty,
    add_region,
    add_teacher,
)

if TYPE_CHECKING:  # torch, for which --help should not wait
    from models.efficientad.networks import ModelSize


def add_ablate_options(ablate: argparse.ArgumentParser) -> None:
    """Describe the options of ``ablate_command``."""
    add_data(ablate)
    ablate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    ablate.add_argument("--steps", type=positive, required=True, metavar="N", help="of every training")
    ablate.add_argument(
        "--seeds", type=positive, default=1, metavar="K", help="every row is trained K times; default 1"
    )
    add_penalty(ablate, required=True)
    ablate.add_argument("--size", choices=SIZES, default="xs", help="of all rows but one; default xs")
    add_teacher(ablate)
    ablate.add_argument("--larger-size", choices=SIZES, help="adds the row of the larger size")
    ablate.add_argument("--larger-teacher", type=Path, metavar="FILE", help="teacher of the larger size")
    for add in (add_image_size, add_region, add_batch, add_checkpoints):
        add(ablate)


def ablate_command(options: argparse.Namespace) -> None:
    """Train with and without each ingredient, as the paper's ablation; after a kill the command resumes."""
    import json

    from foundation.files import write_whole
    from models import training_images
    from models.datasets.contents import contents
    from models.datasets.open import open_data_set
    from models.efficientad.ablation import Settings, Teacher, ablate, as_markdown
    from models.efficientad.checkpoint import Run
    from models.efficientad.teacher import open_teacher
    from models.evaluation.evaluate import check_test

    def teacher(size: "ModelSize", given: Path | None) -> Teacher:
        return Teacher(size, *open_teacher(size, given, options.image_size))

    check_folder(options.out, ["ablation.md", "ablation.json"])
    if options.larger_teacher is not None and options.larger_size is None:
        raise InputError("--larger-teacher: give its --larger-size too")
    if options.larger_size == options.size:
        raise InputError(f"--larger-size {options.size}: is the size of the other rows; expected another")
    smaller = teacher(options.size, options.teacher)
    larger = teacher(options.larger_size, options.larger_teacher) if options.larger_size else None
    data_set = open_data_set(options.data, options.layout)
    check_test(data_set, options.roi)  # found before the training, not after it
    penalty = training_images.load_natural(options.penalty_images, options.image_size)
    splits = {
        seed: training_images.load(data_set, options.image_size, options.roi, seed)
        for seed in range(options.seeds)
    }
    print(contents(data_set), file=sys.stderr)
    base = Run(
        size=options.size,
        image_size=options.image_size,
        roi=options.roi,
        steps=options.steps,
        batch=options.batch,
        seed=0,
        training_digest=splits[0].digest,
        teacher_digest=smaller.digest,
        penalty_digest=None,
        tool_version=version("inspectd"),
    )
    settings = Settings(base, smaller, larger, range(options.seeds), options.checkpoint_every)
    options.out.mkdir(exist_ok=True)
    table = ablate(settings, data_set, splits, penalty, options.out)
    page = as_markdown(table, options.data.absolute().name)
    write_whole(options.out / "ablation.json", json.dumps(table, indent=2).encode() + b"\n")
    write_whole(options.out / "ablation.md", page.encode())
    print(f"{page}\n{options.out}: ablation.md, ablation.json")
