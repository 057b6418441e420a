"""Options that several commands of training and evaluation have, each described once."""

import argparse
from pathlib import Path

from models.option_types import DEFAULT_STEPS, LAYOUTS, PACKAGED_TEACHER, SIZES, image_size, natural, positive
from pictures.option_types import region, tiles


def add_data(command: argparse.ArgumentParser) -> None:
    """Which images, in which layout."""
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of one product (MVTec AD, MVTec LOCO, VisA, plain folders) or a list in CSV",
    )
    command.add_argument("--layout", choices=LAYOUTS, help="of the data; default: recognised")


def add_region(command: argparse.ArgumentParser) -> None:
    """What of a picture the model sees."""
    command.add_argument("--roi", type=region, metavar="X,Y,W,H", help="region of interest in the pictures")


def add_locate(command: argparse.ArgumentParser) -> None:
    """By what a part is brought to its place."""
    command.add_argument(
        "--locate",
        type=Path,
        metavar="FILE",
        help="of 'inspectctl locate teach': each part is brought to its place first; the model says so",
    )


def add_mask(command: argparse.ArgumentParser) -> None:
    """Where to look."""
    command.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="where to look, of 'inspectctl mask': the rest counts for no quantile (default: everywhere)",
    )


def add_tiles(command: argparse.ArgumentParser) -> None:
    """Into what a picture is cut."""
    command.add_argument(
        "--tiles",
        type=tiles,
        metavar="SIZE,OVERLAP",
        help="cut large pictures into tiles of SIZE pixels, each an image of the training",
    )


def add_image_size(command: argparse.ArgumentParser, default: str | None = "256") -> None:
    """To which size pictures are brought."""
    command.add_argument(
        "--image-size",
        type=image_size,
        default=default,
        metavar="N|HxW",
        help="what the model sees; default 256",
    )


def add_size(command: argparse.ArgumentParser, whose: str = "") -> None:
    """How large EfficientAD's networks are."""
    command.add_argument(
        "--size",
        choices=SIZES,
        default="xs",
        help=f"{whose}xs for CPUs, s and m as in the paper; default xs",
    )


def add_steps(command: argparse.ArgumentParser) -> None:
    """How long EfficientAD is trained."""
    command.add_argument(
        "--steps",
        type=positive,
        default=DEFAULT_STEPS,
        metavar="N",
        help=f"training steps; default {DEFAULT_STEPS}, the paper's 70000",
    )


def add_teacher(command: argparse.ArgumentParser, whose: str = "", default: str = PACKAGED_TEACHER) -> None:
    """Whom EfficientAD's student imitates."""
    command.add_argument(
        "--teacher",
        type=Path,
        default=Path(default),
        metavar="FILE|NAME",
        help=f"{whose}teacher weights, or a backbone: lite0, lite1, lite2, an ONNX classifier or"
        f" torchvision:NAME; {PACKAGED_TEACHER}: the weights that come with size xs or s; default {default}",
    )


def add_penalty(command: argparse.ArgumentParser, whose: str = "", required: bool = False) -> None:
    """What EfficientAD's student is to fail on."""
    command.add_argument(
        "--penalty-images",
        type=Path,
        required=required,
        metavar="DIR",
        help=f"{whose}natural images for the pretraining penalty",
    )


def add_batch(command: argparse.ArgumentParser) -> None:
    """How many images a step sees."""
    command.add_argument("--batch", type=positive, default=1, metavar="N", help="images per step; default 1")


def add_checkpoints(command: argparse.ArgumentParser) -> None:
    """How often the state of a training is kept."""
    command.add_argument(
        "--checkpoint-every",
        type=positive,
        default=500,
        metavar="N",
        help="steps between checkpoints; default 500",
    )


def add_seed(command: argparse.ArgumentParser, of: str) -> None:
    """Where what is drawn begins.

    Args:
        command: that draws.
        of: what is drawn.
    """
    command.add_argument("--seed", type=natural, default=0, metavar="N", help=f"of {of}; default 0")
