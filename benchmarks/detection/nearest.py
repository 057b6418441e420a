"""The reference: how much of a defect the backbone itself sees, from which the teachers were distilled.

PatchCore in miniature (Roth et al. 2022): features of good images are remembered, and a patch is as anomalous
as its nearest remembered neighbour is far. Nothing is trained.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from detection.task import Task
from foundation.files import sha256
from models.backbones.backbone import STRIDE, Backbone
from models.backbones.onnx_file import OnnxBackbone
from models.evaluation.judge import Judgement
from pictures.frames import Frame, Size, fit
from pictures.heatmap import MapGeometry
from pictures.image_file import read_image
from pictures.trained_on import TrainedOn

SIDE = 320
REMEMBERED = 12_000
"""Patches, drawn from all patches of the good images."""


@dataclass(frozen=True)
class Nearest:
    """Distances to the nearest of remembered features of a backbone."""

    backbone: Path
    threads: int
    name: str = "reference: nearest neighbours"

    @property
    def settings(self) -> dict[str, str]:
        return {"backbone": sha256(self.backbone), "remembered": str(REMEMBERED)}

    @contextmanager
    def learn(self, task: Task) -> Iterator["NearestJudge"]:
        """See ``Method.learn``. It sees the validation images, too: it has no quantiles to set."""
        backbone = OnnxBackbone(self.backbone, None, self.threads)
        good = task.data_set.good()
        files = [*good.training, *good.validation]
        random = np.random.default_rng(task.seed)
        share = -(-REMEMBERED // len(files))
        remembered = []
        for file in tqdm(files, desc="remembering", unit="image"):
            features = patches(backbone, fit(read_image(file), Size(SIDE, SIDE)))
            remembered.append(
                features[random.choice(len(features), min(share, len(features)), replace=False)]
            )
        yield NearestJudge(backbone, torch.cat(remembered)[:REMEMBERED])

    def was_cut_off(self, task: Task) -> bool:
        """See ``Method.was_cut_off``."""
        return False


class NearestJudge:
    """Judges by the distance of each patch to the nearest remembered one, see ``Judge``."""

    name = "nearest neighbours"
    trained = TrainedOn(None, None)
    threshold: float | None = None
    mask: str | None = None
    training_digest: str | None = None
    batch = 1

    def __init__(self, backbone: Backbone, remembered: Tensor) -> None:
        """Keep N×C float32 features."""
        cells = SIDE // STRIDE
        self.geometry = MapGeometry(Size(SIDE, SIDE), Size(cells, cells), (STRIDE, STRIDE))
        self._backbone = backbone
        self._remembered = remembered

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """See ``Judge.judge``."""
        maps = []
        for frame in frames:
            nearest = torch.cdist(patches(self._backbone, frame), self._remembered).amin(1)
            maps.append(nearest.reshape(self.geometry.map).numpy())
        stacked = np.stack(maps)
        return Judgement(stacked.max(axis=(1, 2)), stacked)


def patches(backbone: Backbone, frame: Frame) -> Tensor:
    """Give a frame's features, H·W×C float32, row by row."""
    features = backbone(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)[None].astype(np.uint8, copy=False))
    return features[0].flatten(1).T
