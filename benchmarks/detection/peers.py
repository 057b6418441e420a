"""The peer: anomalib's EfficientAd, trained by its own losses, with the teacher that ours has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from peer.client import Peer
from tqdm import tqdm

from detection.ours import SIZE
from detection.task import Task
from models.backbones.trunk import Trunk
from models.efficientad.teacher import Teacher, is_backbone, open_teacher
from models.evaluation.judge import Judgement
from pictures.frames import Frame
from pictures.heatmap import MapGeometry
from pictures.trained_on import TrainedOn

_KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""As ``efficientad train`` does for itself: it changes no result, and saves the peer a tenth of its hours."""
_AT_ONCE = 20
"""Steps between two movements of the progress bar."""


@dataclass(frozen=True)
class AnomalibS:
    """EfficientAd, small, in the peer's process.

    A backbone as the teacher gives its features where the peer's networks have their cells; the peer's
    student and autoencoder have as many channels then, and everything else is the peer's own.
    """

    python: Path
    teacher: Path
    """File of its weights, or the name of a backbone."""
    threads: int

    @property
    def name(self) -> str:
        named = f"{self.teacher} as teacher" if is_backbone(self.teacher) else "our teacher"
        return f"anomalib, S, {named}"

    @property
    def settings(self) -> dict[str, str]:
        return {"teacher": self.opened[1]}

    @cached_property
    def opened(self) -> tuple[Teacher, str]:
        """The teacher, and the SHA-256 of it."""
        return open_teacher("s", self.teacher, SIZE)

    @contextmanager
    def learn(self, task: Task) -> Iterator["PeerJudge"]:
        """See ``Method.learn``."""
        images = {"training": task.split.training, "validation": task.split.validation}
        images["natural"] = task.natural.images
        for name, pictures in images.items():
            # As the peer's other files: N×H×W×3, BGR.
            np.save(task.folder / f"{name}.npy", pictures.flip(1).permute(0, 2, 3, 1).numpy())
        teacher = self._written(task.folder)
        state = self._state(task)
        with Peer(self.python, task.folder, self.threads, _KEEPS_MEMORY) as peer:
            begun = peer.ask(
                "start_learning",
                teacher=str(teacher.absolute()),
                training=str(task.folder / "training.npy"),
                natural=str(task.folder / "natural.npy"),
                steps=task.steps,
                seed=task.seed,
                threads=self.threads,
                state=str(state.absolute()),
                run={**self.settings, **task.settings},
            )
            taken = begun["taken"]
            with tqdm(total=task.steps, initial=taken, desc="training the peer", unit="step") as bar:
                while bar.n < task.steps:
                    answer = peer.ask("learn", steps=min(_AT_ONCE, task.steps - bar.n))
                    bar.set_postfix(loss=f"{answer['loss']:.3f}", refresh=False)
                    bar.update(answer["steps"])
            peer.ask("finish_learning", validation=str(task.folder / "validation.npy"))
            for name in images:
                (task.folder / f"{name}.npy").unlink()
            yield PeerJudge(peer, task.folder)
        state.unlink()

    def was_cut_off(self, task: Task) -> bool:
        """See ``Method.was_cut_off``."""
        return self._state(task).exists()

    def _written(self, folder: Path) -> Path:
        """Write the teacher for the peer's process."""
        teacher = self.opened[0]
        if isinstance(teacher, Trunk):
            backbone = folder / "teacher.onnx"
            backbone.write_bytes(teacher.model().SerializeToString())
            return backbone
        weights = folder / "teacher.pt"
        torch.save({f"teacher.{name}": tensor for name, tensor in teacher.items()}, weights)
        return weights

    def _state(self, task: Task) -> Path:
        teacher = f"-{self.teacher}" if is_backbone(self.teacher) else ""
        return task.folder / f"anomalib{teacher}-seed-{task.seed}.pt"


class PeerJudge:
    """The peer's maps, in the size of the image as it gives them, and its scores; see ``Judge``."""

    name = "anomalib"
    geometry = MapGeometry(SIZE, SIZE, (1.0, 1.0))
    trained = TrainedOn(None, None)
    threshold: float | None = None
    mask: str | None = None
    training_digest: str | None = None
    batch = 8

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._peer = peer
        self._frames, self._found = folder / "frames.npy", folder / "found.npz"

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """See ``Judge.judge``."""
        np.save(self._frames, np.stack(frames))
        self._peer.ask("judge", frames=str(self._frames), out=str(self._found))
        with np.load(self._found) as found:
            return Judgement(found["score"], found["map"])
