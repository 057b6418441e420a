"""``efficientad tune``: the search for the settings of a training."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError
from foundation.files import check_folder
from models.errors import TrainingFailed
from models.option_types import SIZES, image_size, positive, rate, teacher_of_size
from models.options import add_batch, add_data, add_penalty, add_region, add_seed

if TYPE_CHECKING:  # torch, for which --help should not wait
    from models.efficientad.networks import ModelSize


def add_tune_options(tune: argparse.ArgumentParser) -> None:
    """Describe the options of ``tune_command``."""
    add_data(tune)
    tune.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    tune.add_argument(
        "--trials",
        type=positive,
        required=True,
        metavar="N",
        help="to finish, those of earlier calls included",
    )
    tune.add_argument(
        "--steps", type=positive, required=True, metavar="N", help="most steps of a trial; the least is N/4"
    )
    tune.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=["xs"], metavar="SIZE", help="to try; default xs"
    )
    tune.add_argument(
        "--teacher",
        dest="teachers",
        action="append",
        type=teacher_of_size,
        default=[],
        metavar="SIZE=FILE",
        help="teacher of a size; default: the packaged one",
    )
    tune.add_argument(
        "--image-sizes",
        nargs="+",
        type=image_size,
        default=["256"],
        metavar="N|HxW",
        help="to try; default 256",
    )
    for add in (add_region, add_penalty, add_batch):
        add(tune)
    add_seed(tune, "split, weights and search")
    tune.add_argument(
        "--storage",
        type=_database,
        metavar="URL",
        help="postgresql://USER@HOST/DATABASE that keeps the study, by the folder's name, for several "
        "machines; the password in PGPASSWORD or ~/.pgpass",
    )
    tune.add_argument(
        "--time-limit", type=rate, metavar="MINUTES", help="begin no trial after so long; default: none"
    )


def _database(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"postgresql", "postgres"} and parts.port != 0 and len(parts.path) > 1
    except ValueError:
        sound = False
    if not sound or not text.isprintable():
        raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected postgresql://USER@HOST/DATABASE")
    if parts.password is not None:
        raise argparse.ArgumentTypeError("expected no password in the address, but in ~/.pgpass")
    return text


def tune_command(options: argparse.Namespace) -> None:
    """Search for learning rate, weight decay, size, image size and steps, without looking at test images."""
    import json

    from foundation.files import sha256, write_whole
    from models import training_images
    from models.datasets.contents import contents
    from models.datasets.open import open_data_set
    from models.efficientad.checkpoint import Run
    from models.efficientad.teacher import load_teacher, teacher_file

    try:
        from models.tune import Material, Search, Teacher, as_markdown, tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise InputError("tune needs Optuna: pip install 'inspectd[tune]'") from error

    check_folder(options.out, ["tune.md", "tune.json", "best.pt"])
    given: dict[ModelSize, Path] = dict(options.teachers)
    unused = sorted(given.keys() - set(options.sizes))
    if unused:
        raise InputError(f"--teacher {unused[0]}=…: that size is not among --sizes")
    files = {size: teacher_file(size, given.get(size)) for size in options.sizes}
    teachers = {size: Teacher(load_teacher(size, file), sha256(file)) for size, file in files.items()}
    image_sizes = [image_size(size) if isinstance(size, str) else size for size in options.image_sizes]
    data_set = open_data_set(options.data, options.layout)
    materials = {}
    for size in image_sizes:
        split = training_images.load(data_set, size, options.roi, options.seed)
        penalty = options.penalty_images and training_images.load_natural(options.penalty_images, size)
        materials[size] = Material(split, penalty)
    print(contents(data_set), file=sys.stderr)
    base = Run(
        size=options.sizes[0],
        image_size=image_sizes[0],
        roi=split.seen.roi,
        camera_picture=split.seen.camera_picture,
        steps=options.steps,
        batch=options.batch,
        seed=options.seed,
        training_digest="",
        teacher_digest="",
        penalty_digest=None,
        tool_version=version("inspectd"),
    )
    options.out.mkdir(exist_ok=True)
    limit_s = None if options.time_limit is None else 60 * options.time_limit
    search = Search(base, teachers, materials, options.steps)
    table = tune(search, trials=options.trials, limit_s=limit_s, out=options.out, storage=options.storage)
    page = as_markdown(table, options.data.absolute().name)
    write_whole(options.out / "tune.json", json.dumps(table, indent=2).encode() + b"\n")
    write_whole(options.out / "tune.md", page.encode())
    print(f"{page}\n{options.out}: tune.md, tune.json")
    if options.storage is not None and table["best"] is not None:
        print(
            f"the best model of all is best.pt on {table['best']['machine']}, trial {table['best']['trial']}"
        )
    if table["best"] is None and table["trials"]:
        reasons = [row["note"] for row in table["trials"] if row["note"]]
        raise TrainingFailed(
            f"{options.out}: none of {len(table['trials'])} trials gave a model, the last for: "
            f"{reasons[-1] if reasons else 'nothing'}; look at the images, or give more --steps"
        )
    if (best := table["best"]) is not None:
        height, width = best["image_size"]
        print(
            f"best: {options.out / 'best.pt'}, trial {best['trial']}, as made by\n"
            f"  efficientad train --data {options.data} --size {best['size']} --image-size {height}x{width} "
            f"--steps {best['steps']} --learning-rate {best['learning_rate']:.3g} "
            f"--weight-decay {best['weight_decay']:.3g} --seed {options.seed} --out model.pt\n"
            f"next: efficientad export {options.out / 'best.pt'}"
        )
