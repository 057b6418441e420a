"""Types of the command line's options."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from foundation.option_types import number, whole_number

if TYPE_CHECKING:  # OpenCV and torch, for which --help should not wait
    from models.efficientad.networks import ModelSize
    from pictures.frames import Size


LAYOUTS = ("csv", "mvtec-loco", "visa", "mvtec-ad", "folders", "images")
"""The keys of ``models.datasets.open.LAYOUTS``, which would import OpenCV."""
SIZES = ("xs", "s", "m")
"""The keys of ``models.efficientad.networks.SIZES``, which would import torch."""
SMALLEST_SIDE = 128
"""Pixels. Below, the first decoder map of EfficientAD's autoencoder, of side // 64 - 1, would be empty."""
_LARGEST_SIDE = 4096
"""Pixels. A model of more would need more memory than machines have; tiles are for large pictures."""
DEFAULT_STEPS = 1_000
"""Of a training of EfficientAD, those of the accuracy page; the paper's are 70,000 (appendix A)."""
DEFAULT_TEACHER = "lite0"
"""Of ``train-model``: a backbone itself, with which EfficientAD tells images apart best."""
PACKAGED_TEACHER = "packaged"
"""Names the distilled weights that come with the size."""

STFPM_STEPS = 400
"""Of a training of STFPM, with 8 images each."""

natural = whole_number(0)
positive = whole_number(1)
rate = number(above=0)
decay = number(0)
share = number(0, below=1)


def image_size(text: str) -> "Size":
    """Parse ``N`` or ``HxW``."""
    from pictures.frames import Size

    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in {1, 2} or not all(re.fullmatch(r"[0-9]{1,6}", side, re.ASCII) for side in sides):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected N or HxW in pixels, for instance 256 or 256x320"
        )
    size = Size(int(sides[0]), int(sides[-1]))
    if min(size) < SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected at least {SMALLEST_SIDE} pixels per side")
    if max(size) > _LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected at most {_LARGEST_SIDE} pixels per side")
    return size


def teacher_of_size(text: str) -> "tuple[ModelSize, Path]":
    """Parse ``SIZE=FILE``."""
    size, equals, file = text.partition("=")
    if size not in SIZES or not equals or not file:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SIZE=FILE, SIZE one of {', '.join(SIZES)}")
    return cast("ModelSize", size), Path(file)
