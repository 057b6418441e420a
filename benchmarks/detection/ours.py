from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from detection.task import Task
from models.efficientad.checkpoint import Run, progress_file
from models.efficientad.networks import ModelSize
from models.efficientad.teacher import Teacher, is_backbone, open_teacher
from models.efficientad.train import train
from models.evaluation.judge import CheckpointJudge
from pictures.frames import Size

SIZE = Size(256, 256)


@dataclass(frozen=True)
class Ours:
    """EfficientAD as ``efficientad train`` trains it: the full recipe, nothing set."""

    size: ModelSize
    teacher: Path | None
    """File of its weights, or the name of a backbone; the packaged one when None."""
    papers_maps: bool = False
    """Reads out the paper's two maps alone."""

    @property
    def name(self) -> str:
        named = f", {self.teacher} as teacher" if self._backbone else ""
        return f"ours, {self.size.upper()}{named}" + (", the paper's maps" if self.papers_maps else "")

    @property
    def settings(self) -> dict[str, str]:
        density = "density in the shape of fine layers" if self._backbone else "density"
        maps = {} if self.papers_maps else {"maps": f"position-aware, {density}, whole"}
        weighted = {"weights": "explained variance"} if self._backbone else {}
        return {"teacher": self.opened[1], **maps, **weighted}

    @cached_property
    def opened(self) -> tuple[Teacher, str]:
        """The teacher, and the SHA-256 of it."""
        return open_teacher(self.size, self.teacher, SIZE)

    @property
    def _backbone(self) -> bool:
        return self.teacher is not None and is_backbone(self.teacher)

    @contextmanager
    def learn(self, task: Task) -> Iterator[CheckpointJudge]:
        """See ``Method.learn``."""
        teacher, digest = self.opened
        run = Run(
            size=self.size,
            image_size=SIZE,
            roi=None,
            steps=task.steps,
            batch=1,
            seed=task.seed,
            training_digest=task.split.digest,
            teacher_digest=digest,
            penalty_digest=task.natural.digest,
            tool_version=version("inspectd"),
            position_aware=not self.papers_maps,
            density=not self.papers_maps,
            whole=not self.papers_maps,
        )
        out = self._model(task)
        train(
            run,
            teacher,
            training=task.split.training,
            validation=task.split.validation,
            penalty=task.natural.images,
            out=out,
            checkpoint_every=500,
        )
        yield CheckpointJudge(out)

    def was_cut_off(self, task: Task) -> bool:
        """See ``Method.was_cut_off``."""
        return progress_file(self._model(task)).exists()

    def _model(self, task: Task) -> Path:
        teacher = f"-{self.teacher}" if self._backbone else ""
        maps = "-papers-maps" if self.papers_maps else ""
        return task.folder / f"{self.size}{teacher}{maps}-seed-{task.seed}.pt"
