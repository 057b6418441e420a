"""EfficientAD (Batzner et al. 2024) behind the seam of the methods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.efficientad.checkpoint import Run, load_model
from models.efficientad.export import export
from models.efficientad.model import EfficientAd
from models.efficientad.networks import ModelSize
from models.efficientad.teacher import open_teacher
from models.efficientad.train import Trained, train
from models.method import GoodImages, Looks
from models.training_images import Split, load_natural
from pictures.frames import Size
from pictures.tiles import Tiles

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class EfficientAdMethod:
    """The method, see ``Method``. A training that was killed goes on where it stopped."""

    checkpoint: Path
    """File of the trained networks; the state of an unfinished training lies beside it."""
    steps: int
    model_size: ModelSize = "xs"
    penalty: Path | None = None
    """Folder of natural images for the pretraining penalty."""
    teacher: Path | None = None
    """See ``open_teacher``; the packaged PDN when None."""
    checkpoint_every: int = 500
    seed: int = 0
    batch: int = 1
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Run`` that are not to have their defaults, such as ``p_hard``."""

    def fit(self, good: GoodImages) -> "EfficientAdModel":
        """See ``Method.fit``; one image in ten is held out."""
        good.check()
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(good.images)))
        held_out = max(1, round(HELD_OUT_SHARE * len(order)))
        split = Split(
            training=good.images[order[held_out:]],
            validation=good.images[order[:held_out]],
            digest=good.digest,
            sizes=[],
            held_out=held_out,
            pixel_digests=good.pixel_digests,
            seen=good.seen,
        )
        mask = None if good.mask is None else good.mask.mask.digest
        run, trained = self.learn(split, good.size, good.tiles, mask, good.looks)
        _, model = load_model(self.checkpoint)
        return EfficientAdModel(run, model, np.array(trained.scores, dtype=np.float64))

    def learn(
        self,
        split: Split,
        size: Size,
        tiles: Tiles | None,
        mask: str | None = None,
        looks: Looks | None = None,
    ) -> tuple[Run, Trained]:
        """Train, and write the checkpoint.

        Args:
            split: images, resized.
            size: of them.
            tiles: into which pictures were cut.
            mask: SHA-256 of the mask, if any.
            looks: what it says, see ``GoodImages.looks``; the maps count everywhere when None.

        Raises:
            InputError, TrainingFailed: see ``Method.fit``.
        """
        teacher, digest = open_teacher(self.model_size, self.teacher, size)
        penalty = None if self.penalty is None else load_natural(self.penalty, size)
        run = Run(
            size=self.model_size,
            image_size=size,
            roi=split.seen.roi,
            steps=self.steps,
            batch=self.batch,
            seed=self.seed,
            training_digest=split.digest,
            teacher_digest=digest,
            penalty_digest=penalty.digest if penalty else None,
            tool_version=version("inspectd"),
            tiles=tiles,
            camera_picture=split.seen.camera_picture,
            reference=None if split.seen.reference is None else split.seen.reference.text,
            pixel_digests=split.pixel_digests,
            mask=mask,
            **self.recipe,
        )
        trained = train(
            run,
            teacher,
            training=split.training,
            validation=split.validation,
            penalty=penalty.images if penalty else None,
            out=self.checkpoint,
            checkpoint_every=self.checkpoint_every,
            looks=looks,
        )
        return run, trained


class EfficientAdModel:
    """See ``Model``.

    Args:
        run: the settings it was trained with.
        model: in evaluation mode.
        held_out_scores: see ``Model``.
    """

    def __init__(self, run: Run, model: EfficientAd, held_out_scores: NDArray[np.float64]) -> None:
        self.held_out_scores = held_out_scores
        self._run, self._model = run, model

    def maps(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """See ``Model.maps``."""
        with torch.inference_mode():
            result = self._model(torch.from_numpy(frames), self._model.quantiles)
        return {name: values.numpy() for name, values in zip(self._model.map_names, result.maps, strict=True)}

    def export(self, path: Path) -> None:
        """See ``Model.export``."""
        export(path, self._run, self._model)
