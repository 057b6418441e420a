"""Pretrained teachers: the packaged one, a backbone, or a file of the user's."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.errors import InputError
from foundation.files import sha256, write_whole
from models.backbones.efficientnet_lite import NAMES
from models.backbones.open import TORCHVISION, open_trunk
from models.backbones.trunk import Trunk
from models.efficientad.networks import TEACHER_CHANNELS, ModelSize, pdn
from models.option_types import PACKAGED_TEACHER
from pictures.frames import Size

PACKAGED = Path(__file__).parent / "teachers"

Teacher = dict[str, Tensor] | Trunk
"""Weights of a PDN, or a backbone with its features joined."""


def open_teacher(size: ModelSize, given: Path | None, image_size: Size) -> tuple[Teacher, str]:
    """Open the teacher that was asked for.

    Args:
        size: of the model.
        given: a file of weights, an ONNX classifier, the name of a backbone, or ``packaged``, as when None.
        image_size: for which a backbone is opened.

    Returns:
        The teacher, and the SHA-256 of all that decides on its features.

    Raises:
        InputError: see ``teacher_file``, ``load_teacher`` and ``open_trunk``.
    """
    if given is not None and is_backbone(given):
        trunk = open_trunk(str(given), image_size, None).joined()
        return trunk, trunk.digest
    file = teacher_file(size, given)
    return load_teacher(size, file), sha256(file)


def is_backbone(given: Path) -> bool:
    """Tell the name or the file of a backbone from a file of weights."""
    return str(given) in NAMES or str(given).startswith(TORCHVISION) or given.suffix == ".onnx"


def teacher_file(size: ModelSize, given: Path | None) -> Path:
    """Choose the user's teacher or the packaged one.

    Raises:
        InputError: none was given and none is packaged for this size.
    """
    if given is not None and str(given) != PACKAGED_TEACHER:
        return given
    packaged = PACKAGED / f"{size}.safetensors"
    if not packaged.is_file():
        raise InputError(
            f"no teacher is packaged for size {size}; give one with --teacher FILE "
            f"(published teacher_small.pth, teacher_medium.pth, or made by 'efficientad distill')"
        )
    return packaged


def load_teacher(size: ModelSize, path: Path) -> dict[str, Tensor]:
    """Read the weights of a teacher as float32.

    Args:
        size: the network they must fit.
        path: safetensors, or a state dict that torch saved: the teachers published by nelson1425/EfficientAD
            and anomalib's, which number the convolutions conv1, conv2 ….

    Returns:
        A state dict for ``pdn(size, TEACHER_CHANNELS[size])``.

    Raises:
        InputError: the file is missing, holds no weights, or its names or shapes are another network's.
    """
    network = pdn(size, TEACHER_CHANNELS[size])
    weights = _with_our_names(read_weights(path), network)
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise InputError(f"{path}: is not a teacher of size {size}: expected a tensor {name}, found none")
        if weights[name].shape != tensor.shape:
            found, wanted = ("×".join(map(str, item.shape)) for item in (weights[name], tensor))
            raise InputError(f"{path}: is not a teacher of size {size}: {name} is {found}, expected {wanted}")
    surplus = sorted(weights.keys() - expected.keys())
    if surplus:
        raise InputError(
            f"{path}: is not a teacher of size {size}: found a tensor {surplus[0]}, expected none"
        )
    return {name: weights[name].float() for name in expected}


def _with_our_names(weights: dict[str, Tensor], network: nn.Sequential) -> dict[str, Tensor]:
    """Name anomalib's convolutions by their place in the network."""
    places = [place for place, layer in enumerate(network) if isinstance(layer, nn.Conv2d)]
    names = {
        f"conv{number}.{kind}": f"{place}.{kind}"
        for number, place in enumerate(places, start=1)
        for kind in ("weight", "bias")
    }
    return {names.get(name, name): tensor for name, tensor in weights.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file or a state dict; no code of the file is executed.

    Raises:
        InputError: the file is missing or neither of the two.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InputError(f"{path}: is not a safetensors file: {error}") from error
    except Exception as error:
        raise InputError(f"{path}: is not a state dict that torch saved") from error
    if not isinstance(weights, dict) or not all(isinstance(item, Tensor) for item in weights.values()):
        raise InputError(f"{path}: is not a state dict; expected named tensors only")
    return weights


def save_teacher(path: Path, teacher: nn.Sequential, about: dict[str, str]) -> None:
    """Write a teacher in half precision.

    Raises:
        InputError: the folder of ``path`` cannot be written.
    """
    from safetensors.torch import save

    weights = {name: tensor.half().contiguous() for name, tensor in teacher.state_dict().items()}
    write_whole(path, save(weights, about))
