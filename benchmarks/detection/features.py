"""PaDiM and PatchCore as ``train-model`` learns them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from detection.ours import SIZE
from detection.task import Task
from models.evaluation.onnx_judge import OnnxJudge
from models.method import GoodImages, Method
from models.padim.fit import CONTEXT, Padim
from models.padim.graph import PICTURE
from models.patchcore.fit import PatchCore


@dataclass(frozen=True)
class FromFeatures:
    """A method with its defaults; it needs no validation images, and holds some of the others out itself."""

    method: Literal["padim", "patchcore"]
    threads: int
    images: int | None = None
    """Learns from so many good images only."""

    @property
    def name(self) -> str:
        shown = {"padim": "ours, PaDiM", "patchcore": "ours, PatchCore"}[self.method]
        return shown if self.images is None else f"{shown}, {self.images} images"

    @property
    def settings(self) -> dict[str, str]:
        made = {"backbone": "lite0", "images": str(self.images or "all")}
        if self.method == "padim":
            made |= {"context": str(CONTEXT), "picture": str(PICTURE)}
        return made

    @contextmanager
    def learn(self, task: Task) -> Iterator[OnnxJudge]:
        """See ``Method.learn``."""
        images = task.split.training[: self.images]
        good = GoodImages(
            images, len(images), SIZE, task.split.seen, None, task.split.digest, task.split.pixel_digests
        )
        made: Method = (
            Padim(threads=self.threads)
            if self.method == "padim"
            else PatchCore(threads=self.threads, seed=task.seed)
        )
        out = task.folder / f"{self.method}-seed-{task.seed}.onnx"
        made.fit(good).export(out)
        yield OnnxJudge(out)

    def was_cut_off(self, task: Task) -> bool:
        """See ``Method.was_cut_off``."""
        return False
