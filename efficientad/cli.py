"""The command ``efficientad``: a model's life from good images to an ONNX graph."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine_runtime.errors import InputError

if TYPE_CHECKING:  # both import OpenCV or torch, for which --help should not wait
    from efficientad.networks import ModelSize
    from engine_runtime.frames import Roi, Size

PROG = "efficientad"

DEFAULT_STEPS = 70_000
"""The paper's (appendix A)."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(argv)
    # Threads that spin while they wait slow torch down twentyfold as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except InputError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted{options.after_interrupt}", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog=PROG, description="Train an anomaly detector on good images and export it."
    )
    top.set_defaults(after_interrupt="")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    sizes = ("xs", "s", "m")

    train = commands.add_parser(
        "train", help="train a model on good images", description=train_command.__doc__
    )
    train.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="good images, or an MVTec AD layout"
    )
    train.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the model, for instance model.pt"
    )
    train.add_argument(
        "--size", choices=sizes, default="xs", help="xs for CPUs, s and m as in the paper; default xs"
    )
    train.add_argument(
        "--steps",
        type=positive,
        default=DEFAULT_STEPS,
        metavar="N",
        help=f"training steps; default {DEFAULT_STEPS}",
    )
    train.add_argument(
        "--image-size",
        type=image_size,
        default="256",
        metavar="N|HxW",
        help="what the model sees; default 256",
    )
    train.add_argument(
        "--roi", type=roi, metavar="X,Y,W,H", help="region of interest in pixels of the pictures"
    )
    train.add_argument(
        "--teacher", type=Path, metavar="FILE", help="teacher weights; default: the packaged XS teacher"
    )
    train.add_argument(
        "--penalty-images", type=Path, metavar="DIR", help="natural images for the pretraining penalty"
    )
    train.add_argument("--batch", type=positive, default=1, metavar="N", help="images per step; default 1")
    train.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of weights, split and order; default 0"
    )
    train.add_argument(
        "--checkpoint-every",
        type=positive,
        default=500,
        metavar="N",
        help="steps between checkpoints; default 500",
    )
    train.set_defaults(
        command=train_command, after_interrupt="; the same command resumes from the last checkpoint"
    )

    export = commands.add_parser("export", help="write a model as ONNX", description=export_command.__doc__)
    export.add_argument("model", type=Path, help="made by 'efficientad train'")
    export.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: beside the model, ending in .onnx"
    )
    export.set_defaults(command=export_command)

    distill = commands.add_parser("distill", help="make a teacher", description=distill_command.__doc__)
    distill.add_argument(
        "--backbone", type=Path, required=True, metavar="FILE", help="quantised ONNX classifier"
    )
    distill.add_argument("--images", type=Path, required=True, metavar="DIR", help="natural images")
    distill.add_argument("--out", type=Path, required=True, metavar="FILE", help="ending in .safetensors")
    distill.add_argument("--size", choices=sizes, default="xs", help="of the teacher; default xs")
    distill.add_argument("--steps", type=positive, required=True, metavar="N", help="training steps")
    distill.add_argument("--batch", type=positive, default=8, metavar="N", help="crops per step; default 8")
    distill.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of weights and crops; default 0"
    )
    distill.set_defaults(command=distill_command)
    return top


def train_command(options: argparse.Namespace) -> None:
    """Train a model on good images; after a kill the same command resumes."""
    from efficientad import dataset
    from efficientad.checkpoint import Run
    from efficientad.teacher import load_teacher, teacher_file
    from efficientad.train import train
    from engine_runtime.files import sha256

    size: ModelSize = options.size
    file = teacher_file(size, options.teacher)
    teacher = load_teacher(size, file)
    split = dataset.load(options.data, options.image_size, options.roi, options.seed)
    penalty = None
    if options.penalty_images is None:
        print("no --penalty-images: training without the pretraining penalty", file=sys.stderr)
    else:
        penalty = dataset.load_natural(options.penalty_images, options.image_size)
    run = Run(
        size=size,
        image_size=options.image_size,
        roi=options.roi,
        steps=options.steps,
        batch=options.batch,
        seed=options.seed,
        training_digest=split.digest,
        teacher_digest=sha256(file),
        penalty_digest=penalty.digest if penalty else None,
        tool_version=version("inspectd"),
    )
    result = train(
        run,
        teacher,
        training=split.training,
        validation=split.validation,
        penalty=penalty.images if penalty else None,
        out=options.out,
        checkpoint_every=options.checkpoint_every,
    )
    if result.resumed_at:
        print(f"resumed at step {result.resumed_at}")
    scores = sorted(result.scores)
    print(
        f"{options.out}: size {size}, {options.image_size} pixels, "
        f"{options.steps} steps on {len(split.training)} images\n"
        f"validation on {len(scores)} held-out images: student–teacher {result.local_loss:.4f}, "
        f"student–autoencoder {result.global_loss:.4f}, "
        f"scores {scores[len(scores) // 2]:.3f} (median) to {scores[-1]:.3f}\n"
        f"next: {PROG} export {options.out}"
    )


def export_command(options: argparse.Namespace) -> None:
    """Write a model as an ONNX graph that takes frames and gives scores and anomaly maps."""
    from efficientad.checkpoint import load_model
    from efficientad.export import export

    run, model = load_model(options.model)
    out = options.out or options.model.with_suffix(".onnx")
    nodes = export(out, run, model)
    print(f"{out}: size {run.size}, {run.image_size}, {nodes} nodes\nnext: build-engine {out}")


def distill_command(options: argparse.Namespace) -> None:
    """Train a teacher to imitate a pretrained backbone on natural images."""
    from efficientad.distill import distil
    from efficientad.teacher import save_teacher

    if options.out.suffix != ".safetensors":
        raise InputError(f"--out {options.out}: expected a name ending in .safetensors")
    settings = {"steps": options.steps, "batch": options.batch, "seed": options.seed}
    made = distil(options.backbone, options.images, options.size, **settings)
    about = {
        "size": options.size,
        "steps": str(options.steps),
        "batch": str(options.batch),
        "seed": str(options.seed),
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


def natural(text: str) -> int:
    """Parse a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def image_size(text: str) -> "Size":
    """Parse ``N`` or ``HxW``."""
    from efficientad.networks import SMALLEST_SIDE
    from engine_runtime.frames import Size

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in {1, 2} or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected N or HxW in pixels, for instance 256 or 256x320"
        )
    size = Size(int(sides[0]), int(sides[-1]))
    if min(size) < SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least {SMALLEST_SIDE} pixels per side")
    return size


def roi(text: str) -> "Roi":
    """Parse ``x,y,width,height``."""
    from engine_runtime.frames import Roi

    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: expected x,y,width,height in pixels")
    region = Roi(*map(int, numbers))
    if region.width < 1 or region.height < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a width and a height of at least 1")
    return region
