"""STFPM (Wang et al. 2021): a student learns the teacher's features of good parts, in three stages.

Against the paper: the student is trained for minutes; the map is the geometric mean of the stages' distances,
which ranks as their product does, without its tiny numbers.
"""

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import write_whole
from models import memory
from models.backbones.open import open_trunk
from models.backbones.trunk import Trunk
from models.errors import TrainingFailed
from models.exported import run_graph
from models.method import MODEL_METHOD, GoodImages, HeldOut, as_text, hold_out, rows, scores
from models.option_types import STFPM_STEPS
from models.stfpm.graph import EPSILON, LOCAL, graph_of
from models.stfpm.network import Network
from pictures.frames import Size

BATCH = 8
LEARNING_RATE = 2e-3
"""Of Adam; it falls to 0 along half a cosine."""


@dataclass(frozen=True)
class Stfpm:
    """The method, see ``Method``."""

    backbone: str = "lite0"
    layers: tuple[str, ...] | None = None
    steps: int = STFPM_STEPS
    threads: int | None = None
    seed: int = 0

    def fit(self, good: GoodImages) -> "StfpmModel":
        """See ``Method.fit``; one image in ten is held out."""
        good.check()
        trunk = open_trunk(self.backbone, good.size, self.layers)
        torch.manual_seed(self.seed)
        teacher, student = Network(trunk, learns=False).eval(), Network(trunk, learns=True)
        _check_memory(trunk, len(good.images))
        torch.set_num_threads(self.threads or os.cpu_count() or 1)
        learned, held_out = hold_out(len(good.images), np.random.default_rng(self.seed))
        images = good.images[torch.from_numpy(learned)]
        self._learn(teacher, student, images)
        about = {MODEL_METHOD: "stfpm", "backbone": trunk.name, "backbone_licence": trunk.licence}
        model = StfpmModel(trunk, student.eval().folded(), {}, about | good.metadata())
        frames = good.images[torch.from_numpy(held_out)].flip(1).permute(0, 2, 3, 1).contiguous()
        maps = model.maps(frames.numpy())[LOCAL]
        peaks = maps[:, good.looks(Size(*maps.shape[1:]), {})].max(1)
        if not (np.isfinite(peaks).all() and peaks.std() > 0):
            raise TrainingFailed(
                "the map local does not tell the held-out good images apart: the model sees nothing in them"
            )
        return StfpmModel(trunk, model.student, {LOCAL: peaks}, model.about)

    def _learn(self, teacher: Network, student: Network, images: Tensor) -> None:
        random = np.random.default_rng(self.seed)
        optimiser = torch.optim.Adam(student.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        seen: dict[int, list[Tensor]] = {}
        with tqdm(range(self.steps), desc="fitting stfpm", unit="step") as bar:
            for step in bar:
                chosen = random.choice(len(images), min(BATCH, len(images)), replace=False).tolist()
                for index in chosen:
                    if index not in seen:
                        seen[index] = _features(teacher, images[index])
                targets = zip(*(seen[index] for index in chosen), strict=True)
                found = student(images[chosen].flip(1).float())
                losses = [
                    distance(features, torch.stack(target).float()).mean() / 2
                    for features, target in zip(found, targets, strict=True)
                ]
                loss = torch.stack(losses).sum()
                if not bool(torch.isfinite(loss)):
                    raise TrainingFailed(
                        f"the loss is {float(loss)} at step {step}; the student learns nothing"
                    )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                bar.set_postfix(loss=f"{float(loss.detach()):.3f}", refresh=False)


def _features(teacher: Network, image: Tensor) -> list[Tensor]:
    """Give the teacher's features of an image, 3×H×W uint8 RGB, in half precision: C×h×w each."""
    with torch.inference_mode():
        return [features[0].half() for features in teacher(image[None].flip(1).float())]


def distance(first: Tensor, second: Tensor) -> Tensor:
    """Give the squared distance of features, N×C×h×w, each made as long as 1: N×h×w."""
    return (_unit(first) - _unit(second)).square().sum(1)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + EPSILON).sqrt()


def _check_memory(trunk: Trunk, images: int) -> None:
    """Refuse what would not fit into memory: the teacher's features of all images, and a step."""
    values = sum(channels * height * width for channels, height, width in trunk.features.values())
    needed = 2 * values * images + 200 * BATCH * 4 * trunk.size.height * trunk.size.width
    free = memory.available()
    if free is not None and needed > free:
        raise InputError(
            f"features of {images} images need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are"
            " available: give fewer images, or a smaller --image-size"
        )


@dataclass(frozen=True)
class StfpmModel:
    """See ``Model``."""

    trunk: Trunk
    student: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    """Output of each convolution of the trunk → weight and bias."""
    held_out: HeldOut
    about: dict[str, str]

    @property
    def held_out_scores(self) -> NDArray[np.float64]:
        """See ``Model``."""
        return scores(self.held_out)

    def graph(self) -> onnx.ModelProto:
        """Give the graph of contract 1."""
        about = self.about | {"tool_version": version("inspectd")}
        if self.held_out:
            about["training_quantiles"] = as_text(rows(self.held_out))
        return graph_of(self.trunk, self.student, about)

    def maps(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See ``Model.maps``."""
        return run_graph(self.graph(), frames)

    def export(self, path: Path) -> None:
        """See ``Model.export``."""
        content = self.graph().SerializeToString()
        write_whole(path, content)
