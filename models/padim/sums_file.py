"""The file beside an exported PaDiM with which images can be added later: ``line3.padim`` for ``line3.onnx``.

It holds sums over the good images, none of the images. The graph would be twice as large with them, and every
engine built of it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from foundation.errors import InputError
from foundation.files import write_whole
from models.backbones.trunk import Trunk
from models.padim.statistics import Statistics

if TYPE_CHECKING:
    from models.padim.fit import PadimModel

FORMAT = "padim sums 2"
_ABOUT, _TRUNK = "about", "trunk"


def sums_file(model: Path) -> Path:
    """Name the file beside a model."""
    return model.with_suffix(".padim")


def save_sums(path: Path, model: "PadimModel") -> None:
    """Write the sums of a model, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    channels = model.statistics.mean.shape[1]
    upper = torch.triu_indices(channels, channels)
    tensors: dict[str, Tensor] = {
        "basis": torch.from_numpy(model.basis),
        "origin": torch.from_numpy(model.origin),
        "mean": model.statistics.mean.contiguous(),
        # A scatter is symmetric: one half is enough.
        "scatter": model.statistics.scatter[:, upper[0], upper[1]].contiguous(),
        "pictures": torch.from_numpy(model.pictures),
        "seen_first": torch.from_numpy(np.stack(model.seen_first)),
    }
    about = {
        "count": model.statistics.count,
        "fine": model.fine,
        "context": model.context.tolist(),
        "about": model.about,
        **model.trunk.plain(),
    }
    write_whole(path, save(tensors, metadata={"format": FORMAT, _ABOUT: json.dumps(about)}))


def load_sums(path: Path) -> "PadimModel":
    """Read the sums of a model; no code of the file is executed.

    Raises:
        InputError: the file is missing, damaged or another.
    """
    from models.padim.fit import PadimModel, SeenFirst

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: holds no sums of train-model; expected a file it wrote beside a model"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: is missing; --update needs this file, which train-model wrote beside the model"
        ) from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]:.100}") from error
    try:
        about = json.loads(metadata[_ABOUT])
        mean, packed = tensors["mean"], tensors["scatter"]
        positions, channels = mean.shape
        upper = torch.triu_indices(channels, channels)
        scatter = torch.empty(positions, channels, channels)
        scatter[:, upper[0], upper[1]] = packed
        scatter[:, upper[1], upper[0]] = packed
        model = PadimModel(
            trunk=Trunk.of_plain(about),
            basis=tensors["basis"].numpy(),
            origin=tensors["origin"].numpy(),
            fine=int(about["fine"]),
            context=np.array(about["context"], dtype=np.int64),
            statistics=Statistics(int(about["count"]), mean, scatter),
            pictures=tensors["pictures"].numpy(),
            seen_first=SeenFirst(*tensors["seen_first"].numpy()),
            about=dict(about["about"]),
        )
    except Exception as error:  # whatever damage leads to
        raise InputError(f"{path}: is damaged: {str(error).splitlines()[0]:.100}") from error
    if not all(np.isfinite(tensor.numpy()).all() for tensor in tensors.values()):
        raise InputError(f"{path}: is damaged: it holds NaN or infinite sums")
    return model
