"""Good images of one product, split into training and validation."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine_runtime.errors import InputError
from engine_runtime.files import sha256
from engine_runtime.frames import Frame, Roi, Size, fit, images_in, read_image

VALIDATION = 0.1
"""Share of the training images held out for the quantiles of the maps (paper §4.4)."""


@dataclass(frozen=True)
class Natural:
    """Images that show anything but the product, for the pretraining penalty."""

    images: Tensor
    """N×3×H×W uint8, RGB."""
    digest: str


@dataclass(frozen=True)
class Split:
    """Images in memory: N×3×H×W uint8, RGB."""

    training: Tensor
    validation: Tensor
    digest: str
    """SHA-256 over the names and contents of all files, sorted by name."""


def good_files(folder: Path) -> list[Path]:
    """List the good images of a folder or of an MVTec AD layout (``train/good``), never those of ``test``.

    Raises:
        InputError: the folder is missing, holds no image, or or lacks ``train/good`` beside a ``test``.
    """
    good = folder / "train" / "good"
    if good.is_dir():
        return images_in(good)
    for part in ("train", "test"):
        if (folder / part).is_dir():
            raise InputError(f"{folder}: has a folder {part} but no train/good; expected good images alone")
    return images_in(folder)


def load(folder: Path, size: Size, roi: Roi | None, seed: int) -> Split:
    """Read, crop, resize and split the good images of a folder.

    Args:
        folder: a plain folder of good images or an MVTec AD layout.
        size: height and width the model takes.
        roi: region of interest in the pictures; the whole picture when None.
        seed: of the split.

    Raises:
        InputError: see ``good_files``; an image cannot be read, the region does not lie inside one, or there
            is only one image.
    """
    files = good_files(folder)
    if len(files) < 2:
        raise InputError(f"{folder}: holds 1 good image; expected at least 2, one of them for validation")
    images = stack(files, size, roi)
    order = np.random.default_rng(seed).permutation(len(files))
    held_out = max(1, round(VALIDATION * len(files)))
    return Split(images[order[held_out:]], images[order[:held_out]], digest(folder, files))


def load_natural(folder: Path, size: Size) -> Natural:
    """Read the images of the pretraining penalty: the middle quarter of each (paper, appendix A).

    Raises:
        InputError: the folder is missing, holds no image or one that cannot be read.
    """
    files = images_in(folder)
    doubled = Size(2 * size.height, 2 * size.width)
    middle = Roi(size.width // 2, size.height // 2, size.width, size.height)
    images = torch.stack(
        [
            planes(fit(fit(read_image(file), doubled), size, middle))
            for file in tqdm(files, desc="reading", unit="image")
        ]
    )
    return Natural(images, digest(folder, files))


def stack(files: list[Path], size: Size, roi: Roi | None) -> Tensor:
    """Read images as N×3×H×W uint8, RGB, cropped and resized.

    Raises:
        InputError: an image cannot be read or does not hold the region.
    """
    images = torch.empty((len(files), 3, *size), dtype=torch.uint8)
    for index, file in enumerate(tqdm(files, desc="reading", unit="image")):
        picture = read_image(file)
        try:
            images[index] = planes(fit(picture, size, roi))
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
    return images


def planes(frame: Frame) -> Tensor:
    """Turn H×W×3 BGR into 3×H×W RGB."""
    return torch.from_numpy(frame).permute(2, 0, 1).flip(0)


def digest(folder: Path, files: list[Path]) -> str:
    """Give the SHA-256 over the names and contents of files, in their order."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder).as_posix()}\n{sha256(file)}\n".encode())
    return whole.hexdigest()
