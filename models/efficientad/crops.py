"""What a teacher learns from: crops of natural images, each with what the backbone sees in it."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from models.backbones.backbone import Backbone
from pictures.frames import Frame
from pictures.image_file import read_image

CROP = 256
"""Side of the teacher's input; the backbone sees the same crop at twice the side, so both maps are 64×64."""
LEAST_CROP = 0.3
"""Smallest crop, as a share of an image's short side."""
GREY = 0.1
"""Share of crops without colour, as in the paper."""

Batch = tuple[Tensor, Tensor]
"""Crops, N×256×256×3 uint8, RGB, and the backbone's features of them, N×C×64×64 float32."""


@dataclass(frozen=True)
class Projection:
    """From the backbone's features to a teacher's channels.

    The leading principal components in their natural scale, because the trailing ones are noise to a small
    network, then turned at random, because a student's loss should not hang on a few channels, and
    scaled by one factor so that a channel's mean variance is 1.
    """

    mean: Tensor
    """C float32."""
    matrix: Tensor
    """C×channels float32."""

    def __call__(self, features: Tensor) -> Tensor:
        """Map N×C×h×w to N×channels×h×w."""
        return torch.einsum("nchw,cd->ndhw", features - self.mean[:, None, None], self.matrix)


class Crops:
    """Draws crops of pictures and shows them to a backbone.

    A picture is read each time that a crop of it is drawn: a million of them fit into no memory.

    Args:
        files: of the pictures.
        backbone: gives the features.
        random: decides what is drawn.
    """

    def __init__(self, files: Sequence[Path], backbone: Backbone, random: np.random.Generator) -> None:
        self._files = files
        self._backbone = backbone
        self._random = random

    def of(self, indices: NDArray[np.int64]) -> Batch:
        """Draw a crop of each of these pictures."""
        pairs = [crop(read_image(self._files[index]), self._random) for index in indices]
        features = self._backbone(np.stack([pair[1] for pair in pairs]))
        return torch.from_numpy(np.stack([pair[0] for pair in pairs])), features

    @contextmanager
    def fresh(
        self, indices: NDArray[np.int64], batch: int, projection: Projection
    ) -> Iterator[Iterator[Batch]]:
        """Give batches without end, each of crops that were never seen before.

        The backbone looks at the next crops while the teacher learns from these.
        """

        def draw() -> Batch:
            images, features = self.of(self._random.choice(indices, batch))
            return images, projection(features)

        def ahead(pool: ThreadPoolExecutor) -> Iterator[Batch]:
            upcoming = pool.submit(draw)
            while True:
                given = upcoming.result()
                upcoming = pool.submit(draw)
                yield given

        with ThreadPoolExecutor(1) as pool:
            yield ahead(pool)

    @contextmanager
    def kept(
        self, indices: NDArray[np.int64], batch: int, projection: Projection, count: int
    ) -> Iterator[Iterator[Batch]]:
        """Draw so many crops once, and give batches of them without end, epoch by epoch.

        Crops and features lie on disk, these in half precision: 1 MB per crop for 96 channels.
        """
        channels, side = projection.matrix.shape[1], CROP // 4
        rounds = -(-count // len(indices))
        order = np.concatenate([self._random.permutation(indices) for _ in range(rounds)])[:count]
        with tempfile.TemporaryDirectory() as folder:
            images, features = (
                np.lib.format.open_memmap(Path(folder) / f"{name}.npy", "w+", kind, (count, *shape))
                for name, kind, shape in (
                    ("crops", np.uint8, (CROP, CROP, 3)),
                    ("features", np.float16, (channels, side, side)),
                )
            )
            with tqdm(desc="showing crops to the backbone", total=count, unit="crop") as bar:
                for start in range(0, count, batch):
                    drawn, seen = self.of(order[start : start + batch])
                    rows = slice(start, start + len(drawn))
                    images[rows], features[rows] = drawn.numpy(), projection(seen).half().numpy()
                    bar.update(len(drawn))
            yield self._epochs(images, features, batch)

    def _epochs(
        self, images: NDArray[np.uint8], features: NDArray[np.float16], batch: int
    ) -> Iterator[Batch]:
        left = np.empty(0, np.int64)
        while True:
            while len(left) < batch:
                left = np.concatenate([left, self._random.permutation(len(images))])
            chosen, left = left[:batch], left[batch:]
            yield torch.from_numpy(images[chosen]), torch.from_numpy(features[chosen]).float()


def crop(picture: Frame, random: np.random.Generator) -> tuple[Frame, Frame]:
    """Cut a random square, perhaps mirrored or grey: 256×256 and 512×512 uint8, RGB."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * random.uniform(LEAST_CROP, 1))
    y, x = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    square: Any = picture[y : y + side, x : x + side, ::-1]
    if random.random() < 0.5:
        square = square[:, ::-1]
    large: Any = cv2.resize(np.ascontiguousarray(square), (2 * CROP, 2 * CROP), interpolation=cv2.INTER_CUBIC)
    if random.random() < GREY:
        large = cv2.cvtColor(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.resize(large, (CROP, CROP), interpolation=cv2.INTER_AREA), large
