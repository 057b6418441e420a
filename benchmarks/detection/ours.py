from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from detection.task import Task
from foundation.files import sha256
from models.efficientad.checkpoint import Run, progress_file
from models.efficientad.networks import ModelSize
from models.efficientad.teacher import load_teacher
from models.efficientad.train import train
from models.evaluation.judge import CheckpointJudge
from pictures.frames import Size

SIZE = Size(256, 256)


@dataclass(frozen=True)
class Ours:
    """EfficientAD as ``efficientad train`` trains it: the full recipe, nothing set."""

    size: ModelSize
    teacher: Path
    papers_maps: bool = False
    """Reads out the paper's two maps alone."""

    @property
    def name(self) -> str:
        return f"ours, {self.size.upper()}" + (", the paper's maps" if self.papers_maps else "")

    @property
    def settings(self) -> dict[str, str]:
        maps = {} if self.papers_maps else {"maps": "position-aware, density, whole"}
        return {"teacher": sha256(self.teacher), **maps}

    @contextmanager
    def learn(self, task: Task) -> Iterator[CheckpointJudge]:
        """See ``Method.learn``."""
        run = Run(
            size=self.size,
            image_size=SIZE,
            roi=None,
            steps=task.steps,
            batch=1,
            seed=task.seed,
            training_digest=task.split.digest,
            teacher_digest=sha256(self.teacher),
            penalty_digest=task.natural.digest,
            tool_version=version("inspectd"),
            position_aware=not self.papers_maps,
            density=not self.papers_maps,
            whole=not self.papers_maps,
        )
        out = self._model(task)
        train(
            run,
            load_teacher(self.size, self.teacher),
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
        maps = "-papers-maps" if self.papers_maps else ""
        return task.folder / f"{self.size}{maps}-seed-{task.seed}.pt"
