"""``efficientad distill``: a teacher from a pretrained backbone."""

import argparse
from importlib.metadata import version
from pathlib import Path

from foundation.errors import InputError
from foundation.files import check_writable
from models.option_types import SIZES, positive
from models.options import add_seed


def add_distill_options(distill: argparse.ArgumentParser) -> None:
    """Describe the options of ``distill_command``."""
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
        f"next: efficientad train --teacher {options.out} --size {options.size} …"
    )
