"""The command ``efficientad``: a model's life from good images to an ONNX graph."""

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError
from foundation.files import check_folder, check_writable
from foundation.option_types import file_name
from foundation.parser import Parser
from models.errors import TrainingFailed
from models.evaluate_cli import add_evaluation_options, evaluate_command
from models.option_types import SIZES, decay, image_size, positive, rate, share, teacher_of_size
from models.options import (
    add_batch,
    add_checkpoints,
    add_data,
    add_image_size,
    add_penalty,
    add_region,
    add_seed,
    add_size,
    add_steps,
    add_teacher,
    add_tiles,
)

if TYPE_CHECKING:  # torch, for which --help should not wait
    from models.efficientad.networks import ModelSize

    Commands = argparse._SubParsersAction[Parser]

PROG = "efficientad"

RECIPE = (
    "learning_rate",
    "weight_decay",
    "p_hard",
    "autoencoder",
    "map_normalisation",
    "position_aware",
    "density",
    "whole",
)
"""Options that are fields of ``models.efficientad.checkpoint.Run``."""

WITHOUT_PENALTY = (
    "no --penalty-images: the student learns from your images alone. Each step is faster, but the model may "
    "find fewer defects: nothing keeps the student from imitating the teacher on what it never saw. "
    "A folder of a few hundred photographs of other things does that"
)


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted{options.after_interrupt}") from stop
    if options.instead is not None:
        print(f"{PROG}: next time use {options.instead}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = Parser(prog=PROG, description="Train an anomaly detector on good images, measure it and export it.")
    top.set_defaults(after_interrupt="", instead=None)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_train, _add_evaluate, _add_ablate, _add_tune, _add_export, _add_distill):
        add(commands)
    return top


def _add_train(commands: "Commands") -> None:
    train = commands.add_parser(
        "train",
        help="train EfficientAD's networks alone; train-model --method efficientad exports them, too",
        description=train_command.__doc__,
    )
    add_data(train)
    train.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the model, for instance model.pt"
    )
    for add in (add_size, add_steps, add_image_size, add_region, add_tiles, add_teacher, add_penalty):
        add(train)
    train.add_argument(
        "--learning-rate", type=rate, metavar="LR", help="of Adam; default 1e-3 for xs, 1e-4 for s and m"
    )
    train.add_argument(
        "--weight-decay", type=decay, default=1e-5, metavar="W", help="of Adam; default 1e-5, the paper's"
    )
    train.add_argument(
        "--p-hard",
        type=share,
        default=0.999,
        metavar="P",
        help="the hard feature loss leaves out this share of differences; 0 turns it off; default 0.999",
    )
    train.add_argument(
        "--no-autoencoder", dest="autoencoder", action="store_false", help="student and teacher alone"
    )
    train.add_argument(
        "--no-position-aware",
        dest="position_aware",
        action="store_false",
        help="leave the maps of student and autoencoder as they are; default: z-scores of what good images"
        " show at each position",
    )
    train.add_argument(
        "--no-density",
        dest="density",
        action="store_false",
        help="no map of the density of the teacher's features",
    )
    train.add_argument(
        "--no-whole",
        dest="whole",
        action="store_false",
        help="no map of how unlike the good ones the picture is as a whole",
    )
    train.add_argument(
        "--map-normalisation",
        choices=("quantile", "gaussian"),
        default="quantile",
        help="of all anomaly maps, on held-out good images; default quantile",
    )
    add_batch(train)
    add_seed(train, "weights, split and order")
    add_checkpoints(train)
    train.set_defaults(
        command=train_command,
        after_interrupt="; the same command resumes from the last checkpoint",
        instead="train-model --method efficientad, which writes the ONNX model, too",
    )


def _add_evaluate(commands: "Commands") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="the same as evaluate-model: measure a model on known defects",
        description=evaluate_command.__doc__,
    )
    add_evaluation_options(evaluate)
    evaluate.set_defaults(command=evaluate_command, instead="evaluate-model, the same command")


def _add_ablate(commands: "Commands") -> None:
    ablate = commands.add_parser(
        "ablate", help="measure what each ingredient is worth", description=ablate_command.__doc__
    )
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
    ablate.set_defaults(
        command=ablate_command, after_interrupt="; the same command goes on where this one stopped"
    )


def _add_tune(commands: "Commands") -> None:
    tune = commands.add_parser(
        "tune", help="search for the settings of a training", description=tune_command.__doc__
    )
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
    tune.set_defaults(
        command=tune_command, after_interrupt="; the same command goes on where this one stopped"
    )


def _add_export(commands: "Commands") -> None:
    export = commands.add_parser("export", help="write a model as ONNX", description=export_command.__doc__)
    export.add_argument("model", type=file_name, help="made by 'efficientad train'")
    export.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: beside the model, ending in .onnx"
    )
    export.set_defaults(
        command=export_command,
        instead="train-model --method efficientad, which writes the ONNX by itself",
    )


def _add_distill(commands: "Commands") -> None:
    distill = commands.add_parser("distill", help="make a teacher", description=distill_command.__doc__)
    distill.add_argument(
        "--backbone",
        required=True,
        metavar="FILE",
        help="lite0, lite1, lite2, an ONNX classifier in float or quantised, or torchvision:NAME",
    )
    distill.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="of the backbone, to learn from; default: the ends of its strides 8 and 16",
    )
    distill.add_argument("--images", type=Path, required=True, metavar="DIR", help="natural images")
    distill.add_argument("--out", type=Path, required=True, metavar="FILE", help="ending in .safetensors")
    distill.add_argument("--size", choices=SIZES, default="xs", help="of the teacher; default xs")
    distill.add_argument("--steps", type=positive, required=True, metavar="N", help="training steps")
    distill.add_argument("--batch", type=positive, default=8, metavar="N", help="crops per step; default 8")
    distill.add_argument(
        "--crops",
        type=positive,
        metavar="N",
        help="draw N crops once and learn from them again and again, several times as fast; each takes 1 MB"
        " of disk for xs, 3.3 MB for s and m; default: new ones for each step",
    )
    add_seed(distill, "weights and crops")
    distill.set_defaults(command=distill_command)


def train_command(options: argparse.Namespace) -> None:
    """Train a model on good images; after a kill the same command resumes."""
    check_writable(options.out)
    from models.datasets.open import open_data_set

    # Refused before images are read, and before torch is loaded.
    data_set = open_data_set(options.data, options.layout)

    from models import training_images
    from models.datasets.contents import contents
    from models.efficientad.method import EfficientAdMethod
    from models.efficientad.teacher import open_teacher

    open_teacher(options.size, options.teacher, options.image_size)
    split = training_images.load(data_set, options.image_size, options.roi, options.seed, tiles=options.tiles)
    print(contents(data_set), file=sys.stderr)
    if options.roi is None and options.tiles is None and len(split.sizes) > 1:
        print(
            f"images of {len(split.sizes)} sizes, from {split.sizes[0]} to {split.sizes[-1]} pixels: "
            f"all are resized to {options.image_size}",
            file=sys.stderr,
        )
    if options.penalty_images is None:
        print(WITHOUT_PENALTY, file=sys.stderr)
    method = EfficientAdMethod(
        checkpoint=options.out,
        steps=options.steps,
        model_size=options.size,
        penalty=options.penalty_images,
        teacher=options.teacher,
        checkpoint_every=options.checkpoint_every,
        seed=options.seed,
        batch=options.batch,
        recipe={name: getattr(options, name) for name in RECIPE},
    )
    _, result = method.learn(split, options.image_size, options.tiles)
    if result.resumed_at:
        print(f"resumed at step {result.resumed_at}")
    scores = sorted(result.scores)
    held_out = f"{split.held_out} held-out images"
    if options.tiles is not None:
        held_out = f"{len(scores)} tiles of {held_out}"
    losses = f"student–teacher {result.local_loss:.4f}"
    if result.global_loss is not None:
        losses += f", student–autoencoder {result.global_loss:.4f}"
    print(
        f"{options.out}: size {options.size}, {options.image_size} pixels, "
        f"{options.steps} steps on {len(split.training)} {'images' if options.tiles is None else 'tiles'}\n"
        f"validation on {held_out}: {losses}, "
        f"scores {scores[len(scores) // 2]:.3f} (median) to {scores[-1]:.3f}\n"
        f"how many defects it finds is not known without any: measure it with evaluate-model\n"
        f"next: {PROG} export {options.out}"
    )


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
            f"  {PROG} train --data {options.data} --size {best['size']} --image-size {height}x{width} "
            f"--steps {best['steps']} --learning-rate {best['learning_rate']:.3g} "
            f"--weight-decay {best['weight_decay']:.3g} --seed {options.seed} --out model.pt\n"
            f"next: {PROG} export {options.out / 'best.pt'}"
        )


def export_command(options: argparse.Namespace) -> None:
    """Write a model as an ONNX graph that takes frames and gives scores and anomaly maps."""
    out = options.out or options.model.with_suffix(".onnx")
    check_writable(out)
    from models.efficientad.checkpoint import load_model
    from models.efficientad.export import export

    run, model = load_model(options.model)
    nodes = export(out, run, model)
    print(f"{out}: size {run.size}, {run.image_size}, {nodes} nodes\nnext: build-engine {out}")


def distill_command(options: argparse.Namespace) -> None:
    """Train a teacher to imitate a pretrained backbone on natural images."""
    if options.out.suffix != ".safetensors":
        raise InputError(f"--out {options.out}: expected a name ending in .safetensors")
    check_writable(options.out)
    from models.efficientad.distill import distil
    from models.efficientad.teacher import save_teacher

    settings = {"steps": options.steps, "batch": options.batch, "seed": options.seed}
    made = distil(
        options.backbone,
        options.images,
        options.size,
        crops=options.crops,
        layers=options.layers,
        **settings,
    )
    about = {
        "size": options.size,
        "backbone": Path(options.backbone).name,
        "layers": " ".join(options.layers or ("default",)),
        "steps": str(options.steps),
        "batch": str(options.batch),
        "seed": str(options.seed),
        "crops": str(options.crops or "new in each step"),
        "explained_variance": f"{made.explained_variance:.4f}",
        "tool_version": version("inspectd"),
    }
    save_teacher(options.out, made.teacher, about)
    print(
        f"{options.out}: size {options.size}, {options.steps} steps of {options.batch} crops; "
        f"trained on {made.images} images, "
        f"explains {made.explained_variance:.1%} of the backbone's variance on held-out images\n"
        f"next: {PROG} train --teacher {options.out} --size {options.size} …"
    )
