"""The seam of the methods: good images in, a model out that gives anomaly maps and can be exported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foundation.errors import InputError
from pictures.frames import Size
from pictures.heatmap import MapGeometry
from pictures.mask import Mask, cells_of
from pictures.region import Seen
from pictures.tiles import Tiles
from pictures.trained_on import PIXEL_DIGESTS, TrainedOn, as_metadata

FEWEST_IMAGES = 5
"""From which anything can be learned, and some be held out."""

MODEL_METHOD = "method"
"""Key of the metadata: by which method a model was learned."""
TRAINING_IMAGES = "training_images"
"""Key of the metadata: number of the good images that a model has seen."""
TRAINING_MASK = "training_mask"
"""Key of the metadata: SHA-256 of the mask under which the training's quantiles were measured."""


HELD_OUT_SHARE = 0.1

Looks = Callable[[Size, Mapping[str, str]], NDArray[np.bool_]]
"""See ``GoodImages.looks``."""


class GivenMask(NamedTuple):
    """Where to look in the images."""

    file: Path
    """Of the mask."""
    mask: Mask
    image: Path
    """One of the images."""


@dataclass(frozen=True)
class GoodImages:
    """Good images of one product, as a model will see them."""

    images: Tensor
    """N×3×H×W uint8, RGB; tiles where there are ``tiles``."""
    pictures: int
    """Number of the files."""
    size: Size
    seen: Seen
    """Which region of the camera's pictures they show."""
    tiles: Tiles | None
    digest: str
    """SHA-256 over names and contents of the files."""
    pixel_digests: str
    """Of the files' pictures, see ``pack_digests``."""
    mask: "GivenMask | None" = None

    def looks(self, map_size: Size, metadata: Mapping[str, str]) -> NDArray[np.bool_]:
        """Say where a map counts for the quantiles, h×w: where the mask looks, by no threshold of its own.

        Args:
            map_size: h and w.
            metadata: of the model; a map covers the whole image where it does not say how it lies.

        Raises:
            InputError: the mask is one of another picture, or leaves nothing to look at.
        """
        if self.mask is None:
            return np.ones(map_size, dtype=bool)
        geometry = MapGeometry.of(self.size, map_size, metadata)
        cells = cells_of(self.mask.file, self.mask.mask, self.mask.image, self.seen, geometry)
        looks: NDArray[np.bool_] = cells.weights(None) > 0
        return looks

    def check(self, fewest: int = FEWEST_IMAGES) -> None:
        """Refuse what nothing can be learned from.

        Raises:
            InputError: there are too few images, or too few different ones.
        """
        if self.pictures < fewest:
            raise InputError(f"--data: holds {self.pictures} good images; expected at least {fewest}")
        different = len({image.numpy().tobytes() for image in self.images[: 4 * fewest]})
        if different < min(fewest, len(self.images)):
            raise InputError(
                f"--data: {self.pictures} good images, of which only {different} differ;"
                f" expected at least {fewest} different ones"
            )

    def metadata(self) -> dict[str, str]:
        """Say in a model's metadata what of which pictures it was trained on."""
        entries = {
            "image_size": f"{self.size.height}x{self.size.width}",
            "channel_order": "BGR",
            "training_digest": self.digest,
            TRAINING_IMAGES: str(self.pictures),
            PIXEL_DIGESTS: self.pixel_digests,
        }
        if self.mask is not None:
            entries[TRAINING_MASK] = self.mask.mask.digest
        seen = self.seen
        return entries | as_metadata(TrainedOn(seen.roi, self.tiles, seen.camera_picture, seen.reference))


HeldOut = Mapping[str, NDArray[np.float32]]
"""Map → its largest value on each of M good images that the model had not seen, M float32."""


class Model(Protocol):
    """What a method has learned."""

    @property
    def held_out_scores(self) -> NDArray[np.float64]:
        """Scores of M good images that it had not seen, float64, with the quantiles of its training."""
        ...

    def maps(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Give the anomaly maps before normalisation, by their names.

        Args:
            frames: N×H×W×3 uint8, BGR.

        Returns:
            N×h×w float32 each.
        """
        ...

    def export(self, path: Path) -> None:
        """Write the model as a graph of contract 1.

        Raises:
            InputError: the folder of ``path`` cannot be written.
        """
        ...


class Method(Protocol):
    """A way of learning from good images alone, with its settings."""

    def fit(self, good: GoodImages) -> Model:
        """Learn, and show progress.

        Raises:
            InputError: the images or the settings do not do.
            TrainingFailed: nothing that could be used came of it.
        """
        ...


def rows(held_out: HeldOut) -> NDArray[np.float32]:
    """Give the quantiles by which a score is the mean of z-scores: K×2 float32, a row for each map."""
    from pictures.map_quantiles import peak_quantiles

    return np.stack([peak_quantiles(peaks[:, None, None]) for peaks in held_out.values()])


def scores(held_out: HeldOut) -> NDArray[np.float64]:
    """Give the scores of M held-out images, float64, by ``rows``; all maps but one are even."""
    quantiles = rows(held_out)
    values = np.stack(list(held_out.values()), axis=1).astype(np.float64)
    low, high = quantiles[:, 0].astype(np.float64), quantiles[:, 1].astype(np.float64)
    scaled: NDArray[np.float64] = (0.1 * (values - low) / (high - low)).mean(axis=1)
    return scaled


def as_text(quantiles: NDArray[np.float32]) -> str:
    """Write quantiles, K×2 float32, as the metadata hold them."""
    return ",".join(f"{value:.9g}" for value in quantiles.ravel().tolist())


def hold_out(count: int, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw one image in ten, at least two, to be held out.

    Returns:
        Indices of the images to learn from, and of those held out, each in a random order.
    """
    order = random.permutation(count)
    held_out = max(2, round(HELD_OUT_SHARE * count))
    return order[held_out:], order[:held_out]
