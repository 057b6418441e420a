"""The command ``efficientad``: a model's life from good images to an ONNX graph."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.files import check_writable
from foundation.option_types import file_name
from foundation.parser import Parser
from models.ablate_cli import ablate_command, add_ablate_options
from models.distill_cli import add_distill_options, distill_command
from models.evaluate_cli import add_evaluation_options, evaluate_command
from models.option_types import decay, rate, share
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
from models.tune_cli import add_tune_options, tune_command

if TYPE_CHECKING:
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


def _add_ablate(commands: "Commands") -> None:
    ablate = commands.add_parser(
        "ablate", help="measure what each ingredient is worth", description=ablate_command.__doc__
    )
    add_ablate_options(ablate)
    ablate.set_defaults(
        command=ablate_command, after_interrupt="; the same command goes on where this one stopped"
    )


def _add_tune(commands: "Commands") -> None:
    tune = commands.add_parser(
        "tune", help="search for the settings of a training", description=tune_command.__doc__
    )
    add_tune_options(tune)
    tune.set_defaults(
        command=tune_command, after_interrupt="; the same command goes on where this one stopped"
    )


def _add_distill(commands: "Commands") -> None:
    distill = commands.add_parser("distill", help="make a teacher", description=distill_command.__doc__)
    add_distill_options(distill)
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


def export_command(options: argparse.Namespace) -> None:
    """Write a model as an ONNX graph that takes frames and gives scores and anomaly maps."""
    out = options.out or options.model.with_suffix(".onnx")
    check_writable(out)
    from models.efficientad.checkpoint import load_model
    from models.efficientad.export import export

    run, model = load_model(options.model)
    nodes = export(out, run, model)
    print(f"{out}: size {run.size}, {run.image_size}, {nodes} nodes\nnext: build-engine {out}")
