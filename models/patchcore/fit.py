"""PatchCore (Roth et al. 2022): how far a patch is from the nearest of good parts, wherever that lay."""

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

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
from models.method import MODEL_METHOD, GoodImages, HeldOut, as_text, hold_out, rows, scores
from models.patchcore.coreset import greedy_coreset
from models.patchcore.graph import LOCAL, graph_of

CORESET = 1000
"""Members: the distances to so many take about as long as the backbone."""
MOST_CANDIDATES = 40_000
"""Patches among which the coreset is chosen; of more, so many are drawn."""


@dataclass(frozen=True)
class PatchCore:
    """The method, see ``Method``."""

    backbone: str = "lite0"
    layers: tuple[str, ...] | None = None
    coreset: int = CORESET
    threads: int | None = None
    seed: int = 0

    def fit(self, good: GoodImages) -> "PatchCoreModel":
        """See ``Method.fit``; one image in ten is held out."""
        good.check()
        trunk = open_trunk(self.backbone, good.size, self.layers).joined()
        self._check_memory(trunk, len(good.images))
        features = Features(trunk, self.threads or os.cpu_count() or 1)
        random = np.random.default_rng(self.seed)
        learned, held_out = hold_out(len(good.images), random)
        patches = self._patches(features, good.images, learned, random)
        # Channels of large values would decide alone.
        scale = 1 / patches.std(0).clamp(min=1e-6)
        patches *= scale
        members = patches[greedy_coreset(patches, min(self.coreset, len(patches)), self.seed)]
        looks = torch.from_numpy(good.looks(trunk.grid, {}))
        peaks = np.array(
            [
                _peak(torch.from_numpy(features(good.images[index : index + 1])), scale, members, looks)
                for index in tqdm(held_out, desc="judging held-out images", unit="image")
            ],
            dtype=np.float32,
        )
        if not (np.isfinite(peaks).all() and peaks.std() > 0):
            raise TrainingFailed(
                "the map local does not tell the held-out good images apart: the model sees nothing in them"
            )
        about = {MODEL_METHOD: "patchcore", "backbone": trunk.name, "backbone_licence": trunk.licence}
        return PatchCoreModel(trunk, scale.numpy(), members.numpy(), {LOCAL: peaks}, about | good.metadata())

    def _patches(
        self, features: Features, images: Tensor, chosen: NDArray[np.int64], random: np.random.Generator
    ) -> Tensor:
        """Give patches of images, N×C: all, or as many of each as there may be candidates."""
        height, width = features.trunk.grid
        most = max(1, MOST_CANDIDATES // len(chosen))
        found = []
        with tqdm(chosen, desc="fitting patchcore", unit="image") as bar:
            for index in bar:
                columns = torch.from_numpy(features(images[index : index + 1]))[0].flatten(1)
                if most < height * width:
                    columns = columns[:, torch.from_numpy(random.choice(height * width, most, replace=False))]
                found.append(columns.T.clone())
        return torch.cat(found)

    def _check_memory(self, trunk: Trunk, images: int) -> None:
        if self.coreset < 1:
            raise InputError(f"--coreset {self.coreset}: expected at least 1")
        height, width = trunk.grid
        candidates = min(MOST_CANDIDATES, images * height * width)
        needed = 4 * (3 * candidates * trunk.channels + height * width * self.coreset)
        free = memory.available()
        if free is not None and needed > free:
            fitting = max(1, (free // 4 - 3 * candidates * trunk.channels) // (height * width))
            raise InputError(
                f"--coreset {self.coreset}: {height * width} positions × {self.coreset} members need"
                f" {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are available:"
                f" --coreset {fitting} would fit"
            )


def _peak(seen: Tensor, scale: Tensor, members: Tensor, looks: Tensor) -> float:
    """Give the largest value of the map of one image's features, 1×C×h×w, where the map counts."""
    patches = seen[0].flatten(1).T * scale
    distances = torch.cdist(patches, members).amin(1).reshape(1, 1, *seen.shape[2:])
    averaged = functional.avg_pool2d(distances, 3, stride=1, padding=1, count_include_pad=False)
    return float(averaged[0, 0, looks].max())


@dataclass(frozen=True)
class PatchCoreModel:
    """See ``Model``."""

    trunk: Trunk
    scale: NDArray[np.float32]
    """C."""
    coreset: NDArray[np.float32]
    """M×C, scaled."""
    held_out: HeldOut
    about: dict[str, str]

    @property
    def held_out_scores(self) -> NDArray[np.float64]:
        """See ``Model``."""
        return scores(self.held_out)

    def graph(self) -> onnx.ModelProto:
        """Give the graph of contract 1."""
        about = self.about | {
            "training_quantiles": as_text(rows(self.held_out)),
            "tool_version": version("inspectd"),
        }
        return graph_of(self.trunk, self.scale, self.coreset, about)

    def maps(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See ``Model.maps``."""
        return run_graph(self.graph(), frames)

    def export(self, path: Path) -> None:
        """See ``Model.export``."""
        content = self.graph().SerializeToString()
        write_whole(path, content)
