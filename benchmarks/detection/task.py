from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models.datasets.data_set import DataSet
from models.evaluation.judge import Judge
from models.training_images import Natural, Split


@dataclass(frozen=True)
class Task:
    """What every method is given.

    Attributes:
        data_set: of one product; methods see its good images only.
        split: the same images for training and for validation for every method, at 256×256.
        natural: images for the pretraining penalty.
        steps: of training, one image each.
        seed: of the split, of weights and of the order of images.
        folder: for what a method keeps, so that a run that was cut off goes on.
    """

    data_set: DataSet
    split: Split
    natural: Natural
    steps: int
    seed: int
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """All of it that decides what a method learns."""
        return {
            "data": self.folder.name,
            "seed": self.seed,
            "steps": self.steps,
            "training": self.split.digest,
            "natural": self.natural.digest,
        }


class Method(Protocol):
    """A way to learn what good parts look like."""

    @property
    def name(self) -> str:
        """As the table has it."""
        ...

    @property
    def settings(self) -> dict[str, str]:
        """What decides the result beside the task; a result with other settings is not taken for this one."""
        ...

    def learn(self, task: Task) -> AbstractContextManager[Judge]:
        """Learn from the good images, and give what judges others."""
        ...

    def was_cut_off(self, task: Task) -> bool:
        """Tell whether ``learn`` will go on with what an earlier run began."""
        ...
