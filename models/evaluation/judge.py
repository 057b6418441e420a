"""The seam of what judges frames: a checkpoint, an engine or an exported graph."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine_runtime.engine import ANOMALY_MAP, SCORE, Quantiles
from engine_runtime.manifest import Manifest
from foundation.errors import EngineRefused, InputError
from pictures.frames import Frame
from pictures.heatmap import MapGeometry
from pictures.locating.reference import parse_reference
from pictures.trained_on import TrainedOn, trained_on

BATCH = 8
"""Frames that a checkpoint judges at once."""


class Judgement(NamedTuple):
    """What a model says of N frames."""

    scores: NDArray[np.float32]
    """N."""
    maps: NDArray[np.float32]
    """N×h×w, the anomaly maps."""


class Judge(Protocol):
    """A model with its quantiles."""

    name: str
    geometry: MapGeometry
    trained: TrainedOn
    """What of a picture its training saw, or its calibration."""
    threshold: float | None
    """A higher score is rejected; None without a calibration."""
    mask: str | None
    """SHA-256 of the mask with which the calibration was made; None without one."""
    training_digest: str | None
    batch: int
    """The most frames to judge at once."""

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """Judge frames of ``geometry.frame``, H×W×3 uint8, BGR.

        Raises:
            EngineFailed: the runtime raised.
        """
        ...


def open_judge(model: Path, calibration: Path | None) -> Judge:
    """Open a checkpoint of ``efficientad train``, a graph in ONNX or an engine of ``build-engine``.

    Args:
        model: the file.
        calibration: made by ``calibrate`` on this engine.

    Raises:
        InputError: the file is none of these, is damaged, or the calibration is another engine's; a
            calibration was given for something else than an engine.
    """
    if _is_engine(model):
        return EngineJudge(model, calibration)
    if calibration is not None:
        raise InputError(f"{calibration}: a calibration belongs to an engine, and {model} is not one")
    if model.suffix in {".onnx", ".xml"}:
        from models.evaluation.onnx_judge import OnnxJudge

        return OnnxJudge(model)
    return CheckpointJudge(model)


class CheckpointJudge:
    """A model of ``efficientad train``, on the GPU where there is one.

    Args:
        path: the file.
    """

    threshold: float | None = None
    mask: str | None = None
    batch = BATCH

    def __init__(self, path: Path) -> None:
        import torch

        from models.efficientad.checkpoint import load_model

        run, model = load_model(path)
        self.name = path.name
        reference = None if run.reference is None else parse_reference(run.reference)
        self.trained = TrainedOn(run.roi, run.tiles, run.camera_picture, reference)
        self.training_digest: str | None = run.training_digest
        self.geometry = model.geometry
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self._device)

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """See ``Judge.judge``."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(frames)).to(self._device)
            result = self.model(batch, self.model.quantiles)
        return Judgement(result.score.cpu().numpy(), result.anomaly_map.cpu().numpy())


class EngineJudge:
    """An engine as the daemon runs it.

    Args:
        path: the engine file.
        calibration: its quantiles and threshold; the quantiles of the training when None.
    """

    def __init__(self, path: Path, calibration: Path | None) -> None:
        from calibration.calibration_file import load_calibration
        from engine_runtime.open import open_engine

        self._engine = open_engine(path)
        manifest = self._engine.manifest
        self.name = path.name
        self.batch = manifest.max_batch
        self.geometry = manifest.geometry
        self.training_digest = manifest.model_metadata.get("training_digest")
        self.threshold: float | None = None
        self.mask: str | None = None
        self.trained = _trained_on(path, manifest)
        if calibration is None:
            self._quantiles = trained_quantiles(path, manifest.model_metadata, len(manifest.maps))
        else:
            given = load_calibration(calibration, manifest.payload_sha256, manifest.maps)
            self.trained = self.trained._replace(roi=given.roi, tiles=given.tiles)
            self.threshold, self.mask = given.threshold, given.mask
            self._refuse_other_reference(calibration, given.locate)
            self._quantiles = given.quantiles_array()

    def _refuse_other_reference(self, calibration: Path, found: str | None) -> None:
        reference = self.trained.reference
        if found != (None if reference is None else reference.digest):
            raise InputError(
                f"{calibration}: parts were brought to their place by {found or 'nothing'}, but the model "
                f"was trained with {reference or 'none'}: run calibrate again"
            )

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """See ``Judge.judge``."""
        result = self._engine.infer(frames, self._quantiles, (SCORE, ANOMALY_MAP))
        return Judgement(result[SCORE], result[ANOMALY_MAP])


def _is_engine(path: Path) -> bool:
    from engine_runtime.engine_file import MANIFEST

    if path.suffix == ".engine":
        return True
    try:  # a checkpoint is a zip too, but holds no manifest
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def trained_quantiles(path: Path, metadata: Mapping[str, str], maps: int) -> Quantiles:
    """Read the quantiles that a model brings along: a row for each of its maps.

    Raises:
        InputError: it brings none.
        EngineRefused: they are no such numbers.
    """
    named = metadata.get("training_quantiles")
    if named is None:
        raise InputError(f"{path}: the model brings no quantiles of its own; give --calibration FILE")
    try:
        numbers = np.array([float(number) for number in named.split(",")], dtype=np.float32)
        return numbers.reshape(maps, 2)
    except ValueError as error:
        raise EngineRefused(
            f"{path}: training_quantiles are {named!r:.60}; expected {2 * maps} numbers"
        ) from error


def _trained_on(path: Path, manifest: Manifest) -> TrainedOn:
    try:
        return trained_on(manifest.model_metadata)
    except InputError as error:
        raise EngineRefused(f"{path}: {error}") from error
