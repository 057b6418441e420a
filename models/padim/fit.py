"""PaDiM (Defard et al. 2020): a Gaussian for each position of a good part's features.

Against the paper: the features are those of PatchCore, averaged over neighbours, and projected on their
principal components instead of a random choice; a position is seen together with the means of its row and
its column, which tells a mark from a stripe that runs through the picture; its covariance is mixed with that
of all positions; the fine layers say where a defect lies, all of them how bad it is; and the picture as a
whole is judged too, by its mean feature and its worst place.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import write_whole
from models import memory
from models.backbones.features import Features
from models.backbones.open import open_trunk
from models.backbones.trunk import Trunk
from models.errors import TrainingFailed
from models.exported import run_graph
from models.method import MODEL_METHOD, GoodImages, HeldOut, as_text, rows, scores
from models.padim.gaussians import Gaussian, at_positions, of_pictures
from models.padim.graph import LOCAL, PICTURE, WHOLE, Deviations, graph_of
from models.padim.statistics import Statistics
from pictures.frames import Size

MOST_CHANNELS = 100
"""Values of a position: principal components of its features, and the context. More are slower."""
MOST_BYTES = 56_000_000
"""Of an engine's matrices, one for each position, so that its file stays under 60 MB."""

CONTEXT = 12
"""The most components whose means over row and column count at a position, too."""
IMAGES_PER_CONTEXT = 12
"""So many images are needed for each of them: with few, they would only add noise."""

TEXTURE = 0.5
"""Below this share of the place in the variance of the features, the context counts. It was 0.28 for a
texture, and 0.7 to 0.97 for parts, where context blurs the maps and finds nothing more."""

FINE_SHARE = 0.4
"""Of the principal components, for the layers of stride 8 and finer."""

HELD_OUT = 128
"""The most images that are held out in turn, to learn how high good parts score."""
FOLDS = 4

_BATCH = 8
_FOR_BASIS = 32
"""Images among whose features the principal components are looked for."""


@dataclass(frozen=True)
class Padim:
    """The method, see ``Method``."""

    backbone: str = "lite0"
    layers: tuple[str, ...] | None = None
    """To join, by their names in the backbone; those that its kind suggests when None."""
    channels: int | None = None
    """Values of a position; at most 100, and what an engine of 60 MB holds, when None."""
    threads: int | None = None
    """To compute with; as many as there are cores when None."""

    def fit(self, good: GoodImages) -> "PadimModel":
        """See ``Method.fit``."""
        good.check()
        trunk = open_trunk(self.backbone, good.size, self.layers).joined()
        channels = self._channels(trunk)
        check_memory(trunk.grid, channels)
        threads = self.threads or os.cpu_count() or 1
        features = Features(trunk, threads)
        seen = _some_features(features, good.images)
        means = 0
        if share_of_place(seen) < TEXTURE:
            means = min(CONTEXT, len(good.images) // IMAGES_PER_CONTEXT, channels // 8)
        basis, origin, fine = principal_components(seen, trunk.fine, channels - 2 * means)
        context = _first_of_each(means, fine, len(basis))
        sums = _Sums(features, basis, origin, context, fine)
        kept, chosen = sums.add(good.images, most_kept=HELD_OUT)
        assert sums.statistics is not None
        model = PadimModel(
            trunk=trunk,
            basis=basis,
            origin=origin,
            fine=fine,
            context=context,
            statistics=sums.statistics,
            pictures=np.concatenate(sums.pictures),
            seen_first=_cross_validated(
                sums.statistics, np.concatenate(sums.pictures), kept, chosen, good.looks(trunk.grid, {})
            ),
            about={MODEL_METHOD: "padim", "backbone": trunk.name, "backbone_licence": trunk.licence}
            | good.metadata(),
        )
        model.check()
        return model

    def _channels(self, trunk: Trunk) -> int:
        if self.channels is not None:
            if not 1 <= self.channels <= trunk.channels:
                raise InputError(
                    f"--channels {self.channels}: {trunk.name} has {trunk.channels}; expected 1 to as many"
                )
            return self.channels
        fitting = math.isqrt(MOST_BYTES // (4 * math.prod(trunk.grid)))
        return max(1, min(MOST_CHANNELS, trunk.channels, fitting))


def check_memory(grid: Size, channels: int) -> None:
    """Refuse what would not fit into memory, before anything is computed.

    Raises:
        InputError: it would not.
    """
    positions, free = math.prod(grid), memory.available()
    needed = (
        6 * 4 * positions * channels**2
    )  # the sums, those of a part of the images, and what is made of them
    if free is not None and needed > free:
        fitting = math.isqrt(free // (6 * 4 * positions))
        raise InputError(
            f"{positions} positions × {channels}² channels need {needed / 1e9:.1f} GB of memory, and"
            f" {free / 1e9:.1f} GB are available: --channels {fitting} would fit, or a smaller --image-size"
        )


class SeenFirst(NamedTuple):
    """What was found on N good images before the model had seen them."""

    peak: NDArray[np.float32]
    """The largest distance of all layers, averaged over 3×3 positions."""
    picture: NDArray[np.float32]
    """The distance of the picture's mean feature."""


@dataclass(frozen=True)
class PadimModel:
    """See ``Model``; it can take more images."""

    trunk: Trunk
    basis: NDArray[np.float32]
    """D×C: principal components."""
    origin: NDArray[np.float32]
    """C: the mean feature."""
    fine: int
    """So many of the D, the first, are of the fine layers alone."""
    context: NDArray[np.int64]
    """K of the D components: their means over row and column count at a position, too."""
    statistics: Statistics
    pictures: NDArray[np.float32]
    """N×C: the mean feature of each image."""
    seen_first: "SeenFirst"
    about: dict[str, str]

    @property
    def deviations(self) -> Deviations:
        """Of what the map ``whole`` is made of, on held-out good images."""
        return Deviations(*(float(values.std()) for values in self.seen_first))

    @property
    def held_out(self) -> HeldOut:
        """Largest values of the maps on good images that the model had not seen."""
        peak, picture = self.seen_first
        whole = (1 - PICTURE) * peak / self.deviations.peak + PICTURE * picture / self.deviations.picture
        return {LOCAL: peak, WHOLE: whole.astype(np.float32)}

    @property
    def held_out_scores(self) -> NDArray[np.float64]:
        """See ``Model``."""
        return scores(self.held_out)

    def check(self) -> None:
        """Refuse a model that tells nothing apart.

        Raises:
            TrainingFailed: a distance is the same on all held-out images, or no number.
        """
        for values in self.seen_first:
            if not (np.isfinite(values).all() and values.std() > 0):
                raise TrainingFailed(
                    "the distances do not tell the held-out good images apart: the model sees nothing in them"
                )

    def with_more(
        self,
        images: Tensor,
        pictures: int,
        digest: str,
        looks: NDArray[np.bool_],
        threads: int | None = None,
    ) -> "PadimModel":
        """Add good images; they are judged before they are learned from, and so held out.

        Args:
            images: N×3×H×W uint8, RGB.
            pictures: number of their files.
            digest: over their names and contents.
            looks: h×w, where their maps count.
            threads: to compute with; as many as there are cores when None.
        """
        check_memory(self.trunk.grid, len(self.basis) + 2 * len(self.context))
        features = Features(self.trunk, threads or os.cpu_count() or 1)
        sums = _Sums(features, self.basis, self.origin, self.context, self.fine)
        sums.statistics = self.statistics
        kept, chosen = sums.add(images, most_kept=HELD_OUT)
        means = np.concatenate(sums.pictures)[chosen]
        before = _judged(self.statistics, self.pictures, kept, means, looks)
        assert sums.statistics is not None
        seen = int(self.about["training_images"]) + pictures
        model = replace(
            self,
            statistics=sums.statistics,
            pictures=np.concatenate([self.pictures, *sums.pictures]),
            seen_first=SeenFirst(
                *(np.concatenate(both) for both in zip(self.seen_first, before, strict=True))
            ),
            about=self.about | {"training_images": str(seen), "training_digest": digest},
        )
        model.check()
        return model

    def graph(self) -> onnx.ModelProto:
        """Give the graph of contract 1."""
        about = self.about | {
            "training_quantiles": as_text(rows(self.held_out)),
            "tool_version": version("inspectd"),
        }
        positions = at_positions(self.statistics)
        return graph_of(
            self.trunk,
            self.basis,
            self.origin,
            fine=self.fine,
            context=self.context,
            positions=positions,
            pictures=of_pictures(self.pictures),
            deviations=self.deviations,
            metadata=about,
        )

    def maps(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See ``Model.maps``."""
        return run_graph(self.graph(), frames)

    def export(self, path: Path) -> None:
        """See ``Model.export``; the sums for updates lie beside, in a file of the same name."""
        from models.padim.sums_file import save_sums, sums_file

        content = self.graph().SerializeToString()
        save_sums(sums_file(path), self)
        write_whole(path, content)


def _some_features(features: Features, images: Tensor) -> NDArray[np.float32]:
    """Give the features of some images, spread over all, M×C×h×w."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), _FOR_BASIS)).round().astype(int))
    with tqdm(chosen, desc="looking", unit="image") as bar:  # closed, so that an error has a line of its own
        return np.concatenate([features(images[index : index + 1]) for index in bar])


def share_of_place(seen: NDArray[np.float32]) -> float:
    """Tell what share of the features' variance is that of the place: much for a part, little for a texture.

    Args:
        seen: features of M ≥ 2 images, M×C×h×w.

    Returns:
        At most 1; about 0 when each place looks like any other.
    """
    within = float(seen.var(axis=0, ddof=1).sum(axis=0).mean())
    between = float(seen.mean(axis=0).var(axis=(1, 2)).sum()) - within / len(seen)  # what chance gives
    return between / max(between + within, float(np.finfo(np.float32).tiny))


def principal_components(
    seen: NDArray[np.float32], split: int, channels: int, fine_share: float = FINE_SHARE
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Find the directions in which features vary most, those of the fine and of the coarse layers apart.

    Args:
        seen: features of some images, M×C×h×w.
        split: so many of the C are of the fine layers; they are the first.
        channels: D, how many directions.
        fine_share: of them, for the fine layers.

    Returns:
        D×C, the first of them for the fine layers; the mean feature, C; and how many are for the fine ones.
    """
    columns = seen.transpose(1, 0, 2, 3).reshape(seen.shape[1], -1)
    origin = columns.mean(axis=1, dtype=np.float64)
    fine = fine_components(split, len(columns), channels, fine_share)
    basis = np.zeros((channels, len(columns)), dtype=np.float32)
    for rows_of, layers in ((slice(fine), slice(split)), (slice(fine, None), slice(split, None))):
        if (count := len(basis[rows_of])) > 0:
            _, vectors = np.linalg.eigh(
                np.cov(columns[layers]).astype(np.float64).reshape(-1, len(columns[layers]))
            )
            basis[rows_of, layers] = vectors[:, ::-1][:, :count].T
    return basis, origin.astype(np.float32), fine


def fine_components(split: int, features: int, channels: int, fine_share: float = FINE_SHARE) -> int:
    """Say how many of so many principal components are for the fine layers.

    Args:
        split: so many of the features are of the fine layers.
        features: of all layers.
        channels: principal components.
        fine_share: wanted; there may be too few features of a kind.
    """
    return min(split, max(round(fine_share * channels), channels - (features - split)))


def _first_of_each(count: int, fine: int, components: int) -> NDArray[np.int64]:
    """Choose components: the first of the fine layers, and as many of the coarse ones."""
    of_fine = min(count // 2, fine) if components > fine else count
    return np.array([*range(of_fine), *range(fine, fine + count - of_fine)], dtype=np.int64)


def with_context(projected: Tensor, context: NDArray[np.int64], fine: int) -> Tensor:
    """Put the means over row and column of some components after those of the fine layers.

    Args:
        projected: N×D×h×w.
        context: K of the D.
        fine: so many of the D, the first, are of the fine layers.

    Returns:
        N×(2K+D)×h×w.
    """
    chosen = projected[:, torch.from_numpy(context)]
    rows, columns = (chosen.mean(axis, keepdim=True).expand_as(chosen) for axis in (3, 2))
    return torch.cat([projected[:, :fine], rows, columns, projected[:, fine:]], dim=1)


class _Sums:
    """Statistics that grow, batch by batch."""

    def __init__(
        self,
        features: Features,
        basis: NDArray[np.float32],
        origin: NDArray[np.float32],
        context: NDArray[np.int64],
        fine: int,
    ) -> None:
        self._features = features
        self._basis, self._bias = torch.from_numpy(basis), torch.from_numpy(-basis @ origin)
        self._context, self._fine = context, fine
        self.statistics: Statistics | None = None
        self.pictures: list[NDArray[np.float32]] = []

    def add(self, images: Tensor, most_kept: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Add images.

        Returns:
            The projected features of some of them with their context, M×(2K+D)×h×w, and which these are, M.
        """
        chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), most_kept)).round().astype(int))
        kept = []
        with tqdm(total=len(images), desc="fitting padim", unit="image") as bar:
            for start, batch in _batches(images):
                seen = torch.from_numpy(self._features(batch))
                weight = self._basis[:, :, None, None]
                values = functional.conv2d(seen, weight, self._bias)
                projected = with_context(values, self._context, self._fine)
                added = Statistics.of(projected)
                self.statistics = added if self.statistics is None else self.statistics.plus(added)
                self.pictures.append(seen.mean((2, 3)).numpy())
                inside = chosen[(chosen >= start) & (chosen < start + len(batch))]
                kept.append(projected[torch.from_numpy(inside - start)])
                bar.update(len(batch))
        return torch.cat(kept), chosen


def _batches(images: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), _BATCH):
        yield start, images[start : start + _BATCH]


def _cross_validated(
    statistics: Statistics,
    pictures: NDArray[np.float32],
    kept: Tensor,
    chosen: NDArray[np.int64],
    looks: NDArray[np.bool_],
) -> "SeenFirst":
    """Judge each of some images by what the others say, a part of them at a time.

    Args:
        statistics: of all images.
        pictures: the mean features of all images.
        kept: the projected features of some with their context, M×(2K+D)×h×w.
        chosen: M, which these are.
        looks: h×w, where the maps count.
    """
    count = len(kept)
    folds = FOLDS if count >= 6 * FOLDS else min(count, 2 * FOLDS)
    fold_of = np.arange(count) % folds
    found = SeenFirst(*np.empty((2, count), dtype=np.float32))
    for fold in tqdm(range(folds), desc="judging held-out images", unit="part"):
        out = fold_of == fold
        part = kept[torch.from_numpy(out)]
        others = np.delete(pictures, chosen[out], axis=0)
        judged = _judged(statistics.minus(Statistics.of(part)), others, part, pictures[chosen[out]], looks)
        for values, some in zip(found, judged, strict=True):
            values[out] = some
    return found


def _judged(
    statistics: Statistics,
    pictures: NDArray[np.float32],
    projected: Tensor,
    means: NDArray[np.float32],
    looks: NDArray[np.bool_],
) -> SeenFirst:
    """Judge images by others: by their projected features with context and their mean features, N×C."""
    height, width = projected.shape[2:]
    positions = at_positions(statistics)
    apart = projected.flatten(2).permute(2, 0, 1) - torch.from_numpy(positions.mean)[:, None]
    squares = torch.bmm(apart, torch.from_numpy(positions.whitening)).square_().mean(2)
    maps = squares.T.reshape(-1, 1, height, width)
    averaged = functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)
    return SeenFirst(
        averaged[:, 0, torch.from_numpy(looks)].amax(1).sqrt().numpy(),
        _distances(of_pictures(pictures), means),
    )


def _distances(gaussian: Gaussian, values: NDArray[np.float32]) -> NDArray[np.float32]:
    independent = (values - gaussian.mean) @ gaussian.whitening
    distances: NDArray[np.float32] = np.sqrt(np.square(independent).mean(axis=1))
    return distances
