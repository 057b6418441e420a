"""Files of a training run: the finished model, and the state from which a killed run goes on."""

import io
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from foundation.errors import InputError
from foundation.files import write_whole
from models.backbones.trunk import Trunk
from models.efficientad.losses import P_HARD
from models.efficientad.model import EfficientAd
from models.efficientad.networks import SIZES, ModelSize
from pictures.frames import Roi, Size
from pictures.tiles import Tiles

MapNormalisation = Literal["quantile", "gaussian"]
"""How the maps of good images are scaled before their mean is taken (paper §4.4 and its ablation)."""
MAP_NORMALISATIONS: tuple[MapNormalisation, ...] = get_args(MapNormalisation)

MODEL = "efficientad model 1"
PROGRESS = "efficientad progress 1"


@dataclass(frozen=True)
class Run:
    """All that decides what a training run gives; a file made by one run is never continued by another."""

    size: ModelSize
    image_size: Size
    roi: Roi | None
    steps: int
    batch: int
    seed: int
    training_digest: str
    teacher_digest: str
    penalty_digest: str | None
    tool_version: str
    learning_rate: float | None = None
    """Of Adam; that of the size when None."""
    weight_decay: float = 1e-5
    p_hard: float = P_HARD
    """Of the hard feature loss; 0 averages all differences."""
    autoencoder: bool = True
    map_normalisation: MapNormalisation = "quantile"
    position_aware: bool = True
    """Local and global map are z-scores of what good images show at each position."""
    density: bool = True
    """There is a map of the density of the teacher's features."""
    whole: bool = True
    """There is a map of how unlike the good ones the picture is as a whole."""
    tiles: Tiles | None = None
    """Into which the region of each image was cut; None when an image was one frame."""
    pixel_digests: str = field(default="", compare=False)
    """Of the images that the weights learnt from, see ``pack_digests``."""
    camera_picture: Size | None = None
    """Of the camera, of which the images showed ``roi``, or the whole; None where they did not say."""
    reference: str | None = None
    """``Reference.text`` of the part, by which it was brought to its place; None where it was left."""
    mask: str | None = None
    """SHA-256 of the mask that says where the maps of the validation images count; everywhere when None."""


_FIRST = {"position_aware": False, "density": False, "whole": False}
"""Settings of which files of older versions say nothing, where these differ from the defaults."""


def untrained_model(run: Run, trunk: Trunk | None = None) -> EfficientAd:
    """Make the model of a run, with weights drawn at random.

    Args:
        run: its settings.
        trunk: of the backbone that is the teacher; None where it is a PDN.
    """
    return EfficientAd(
        run.size,
        run.image_size,
        run.autoencoder,
        position_aware=run.position_aware,
        with_density=run.density,
        with_whole=run.whole,
        trunk=trunk,
    )


def save_model(path: Path, run: Run, model: EfficientAd) -> None:
    """Write a finished model.

    Raises:
        InputError: the folder cannot be written, the disk is full, or failed.
    """
    content = {"format": MODEL, "run": _plain(run), "state": model.state_dict()}
    if model.trunk is not None:
        content["trunk"] = model.trunk.plain()
    _save(path, content)


def load_model(path: Path) -> tuple[Run, EfficientAd]:
    """Read a finished model, in evaluation mode; no code of the file is executed.

    Raises:
        InputError: the file is missing, damaged or no model of ``efficientad train``.
    """
    content = _load(path, MODEL, "a model of 'efficientad train'")
    try:
        settings = {**_FIRST, **content["run"]}
        settings["image_size"] = Size(*settings["image_size"])
        settings["roi"] = Roi(*settings["roi"]) if settings["roi"] else None
        picture = settings.get("camera_picture")
        settings["camera_picture"] = Size(*picture) if picture else None
        settings["tiles"] = Tiles(**settings["tiles"]) if settings.get("tiles") else None
        run = Run(**settings)
        if run.size not in SIZES:
            raise ValueError(run.size)
        model = untrained_model(run, Trunk.of_plain(content["trunk"]) if "trunk" in content else None)
        state = dict(content["state"])
        # Of a model without autoencoder, older versions kept a second row.
        state["quantiles"] = state["quantiles"][: len(model.map_names)]
        state.setdefault("weights", torch.ones(len(model.map_names)))  # older versions had none
        _check_shapes(path, run, model, state)
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is a damaged model: {str(error).splitlines()[0]}") from error
    return run, model.eval()


def _check_shapes(path: Path, run: Run, model: EfficientAd, state: dict[str, Any]) -> None:
    """Refuse what an inspectd trained whose networks were others."""
    for name, tensor in model.state_dict().items():
        found = state.get(name)
        if isinstance(found, torch.Tensor) and found.shape != tensor.shape:
            have, want = ("×".join(map(str, shape)) for shape in (found.shape, tensor.shape))
            raise InputError(
                f"{path}: was trained by inspectd {run.tool_version}, whose networks of size {run.size} had"
                f" other shapes: {name} is {have}, here {want}; train it again"
            )


def progress_file(model: Path) -> Path:
    """Name the file beside a model that holds the state of its unfinished run."""
    return model.with_name(f"{model.name}.partial")


def save_progress(
    path: Path, run: Run, step: int, model: EfficientAd, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state of a run after ``step`` steps; where that fails, the state before it is kept.

    Raises:
        InputError: the folder cannot be written.
        OSError: the disk is full, or failed.
    """
    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    _save(path, {"format": PROGRESS, "run": _plain(run), "state": state})


def load_progress(path: Path, run: Run) -> dict[str, Any] | None:
    """Read the state of a killed run; None when there is none.

    Raises:
        InputError: the file is damaged or belongs to a run with other settings.
    """
    if not path.exists():
        return None
    content = _load(path, PROGRESS, "the state of a training run")
    wanted = _plain(run)
    for setting in fields(Run):
        missing = None if setting.default is MISSING else setting.default  # in files of older versions
        missing = _FIRST.get(setting.name, missing)
        found = content["run"].get(setting.name, missing)
        if setting.compare and found != wanted[setting.name]:
            raise InputError(
                f"{path}: belongs to a run with {setting.name} {found}, this one has {wanted[setting.name]}; "
                "give the same options to resume it, or delete it to start over"
            )
    return dict(content["state"])


def _plain(run: Run) -> dict[str, Any]:
    """Give a run in types that torch loads without executing code."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(run).items()}


def _save(path: Path, content: dict[str, Any]) -> None:
    # Through memory: of a full disk torch itself says neither which file nor why.
    whole = io.BytesIO()
    torch.save(content, whole)
    write_whole(path, whole.getbuffer())


def _load(path: Path, expected: str, kind: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise InputError(f"{path}: is not {kind}, or damaged") from error
    if not isinstance(content, dict) or content.get("format") != expected:
        raise InputError(f"{path}: is not {kind}")
    return content
