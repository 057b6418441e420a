"""Good images of one product, split into training and validation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from foundation.errors import InputError
from models.datasets.data_set import DataSet
from pictures.digest import pack_digests, pixel_digest, set_digest
from pictures.frames import Frame, Roi, Size, fit
from pictures.image_file import read_image, read_unchanged
from pictures.image_folder import images_in
from pictures.locating.reference import Reference
from pictures.region import Seen, seen_region
from pictures.tiles import TileGrid, Tiles
from pictures.view import View

VALIDATION = 0.1
"""Share of the training images held out for the quantiles of the maps (paper §4.4)."""

FEWEST_LEVELS = 16
"""As many grey levels are left of 12 bits in files of 16, of which the upper 8 are used."""


@dataclass(frozen=True)
class Natural:
    """Images that show anything but the product, for the pretraining penalty."""

    images: Tensor
    """N×3×H×W uint8, RGB."""
    digest: str


@dataclass(frozen=True)
class Split:
    """Images, or tiles of images, in memory: N×3×H×W uint8, RGB."""

    training: Tensor
    validation: Tensor
    digest: str
    """SHA-256 over the names and contents of all files, sorted by name."""
    sizes: list[Size]
    """Of the pictures on disk, each once, sorted."""
    held_out: int
    """Number of the pictures that are kept for validation."""
    pixel_digests: str
    """Of the pictures of ``training``, see ``pack_digests``."""
    seen: Seen
    """Which region of the camera's pictures they show."""


@dataclass(frozen=True)
class Pictures:
    """What was read of image files, in their order."""

    images: list[Tensor]
    """Tiles×3×H×W uint8, RGB, each."""
    sizes: list[Size]
    """On disk."""
    digests: list[int]
    """Of the whole pictures' pixels."""


def load(
    data_set: DataSet,
    size: Size,
    roi: Roi | None,
    seed: int,
    *,
    tiles: Tiles | None = None,
    reference: Reference | None = None,
) -> Split:
    """Read, crop, resize and split the good images of a data set.

    Args:
        data_set: those that it names for validation are taken, else one in ten of those for training.
        size: height and width the model takes.
        roi: region of interest in the pictures; the whole picture when None.
        seed: of the split.
        tiles: into which each picture is cut; all tiles of a picture are for training, or all for validation.
        reference: by which the part is brought to its place first; it is left where it lies when None.

    Raises:
        InputError: there are no good images or only one, one cannot be read, the region does not lie inside
            it or is smaller than a tile; or all are 16-bit images that use less than 12 of their bits.
    """
    good = data_set.good()
    files = [*good.training, *good.validation]
    if len(files) < 2:
        raise InputError(
            f"{data_set.root}: holds 1 good image; expected at least 2, one of them for validation"
        )
    seen = seen_region(files, roi, reference=reference)
    pictures = stack(files, size, seen.view, tiles)
    if good.validation:
        order, held_out = np.arange(len(files)), len(good.validation)
        validation, training = order[-held_out:], order[:-held_out]
    else:
        order = np.random.default_rng(seed).permutation(len(files))
        held_out = max(1, round(VALIDATION * len(files)))
        validation, training = order[:held_out], order[held_out:]
    return Split(
        torch.cat([pictures.images[index] for index in training]),
        torch.cat([pictures.images[index] for index in validation]),
        set_digest(data_set.root, files),
        sorted(set(pictures.sizes)),
        held_out,
        pack_digests(pictures.digests[index] for index in training),
        seen,
    )


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
    return Natural(images, set_digest(folder, files))


def stack(
    files: Sequence[Path], size: Size, view: View | None = None, tiles: Tiles | None = None
) -> Pictures:
    """Read images, bring the part to its place, crop and resize them.

    Without ``tiles``, each is one tile.

    Raises:
        InputError: an image cannot be read, does not hold the region or the part, or the region is smaller
            than a tile; or all are 16-bit images that use less than 12 of their bits.
    """
    view = View(None) if view is None else view
    pictures = Pictures([], [], [])
    brightest = 0
    for file in tqdm(files, desc="reading", unit="image"):
        picture = read_image(file)
        pictures.sizes.append(Size(*picture.shape[:2]))
        pictures.digests.append(pixel_digest(picture))
        brightest = max(brightest, int(picture.max()))
        try:
            frames = [planes(frame) for frame in _frames(view.see(picture), size, tiles)]
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        pictures.images.append(torch.stack(frames))
    if brightest < FEWEST_LEVELS and _is_16_bit(files[0]):
        raise InputError(
            f"{files[0]}: 16 bits per channel, but neither it nor any other image has a value above 4095, "
            "and the upper 8 bits are used: expected pixels of 10 or 12 bits shifted to the upper end of 16"
        )
    return pictures


def _frames(seen: Frame, size: Size, tiles: Tiles | None) -> Iterable[Frame]:
    if tiles is None:
        return [fit(seen, size)]
    return TileGrid(tiles, Size(*seen.shape[:2])).cut(seen, size)


def _is_16_bit(file: Path) -> bool:
    return read_unchanged(file).dtype == np.uint16


def planes(frame: Frame) -> Tensor:
    """Turn H×W×3 BGR into 3×H×W RGB."""
    return torch.from_numpy(frame).permute(2, 0, 1).flip(0)
