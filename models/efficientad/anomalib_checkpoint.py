"""Takes EfficientAD over from anomalib: its checkpoints (.ckpt) and torch exports (.pt), 0.7 to 2.7."""

import re
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from foundation.errors import InputError
from models.efficientad.anomalib_model import AnomalibModel
from models.efficientad.networks import WIDTHS, AsInAnomalib, ModelSize
from models.torch_file import Record, TorchFile, find, walk
from pictures.frames import Size

SMALLEST_SIDE = 256
"""Pixels. Below, the last kernel of anomalib's encoder is larger than what it looks at."""

_BORDER = 4
_CONVOLUTION = re.compile(
    r"(?:^|\.)(teacher|student|ae|autoencoder)\.(?:\w+\.)*?(|en|de)conv(\d{1,2})\.(weight|bias)$"
)
_QUANTILE = re.compile(r"(?:^|\.)quantiles\.(q[ab]_(?:st|ae))$")
_STATISTIC = re.compile(r"(?:^|\.)mean_std\.(mean|std)$")
_ROWS = ("st", "ae")
"""How anomalib names the maps local and global."""


def load_anomalib(path: Path, image_size: Size | None = None, padding: bool | None = None) -> AnomalibModel:
    """Read a model of anomalib; no code of the file is executed.

    Args:
        path: a checkpoint of Lightning, a torch export, or a state dict.
        image_size: that it was trained with; when None, what the file says, else 256×256.
        padding: whether its networks pad; when None, what the file says, else they do not.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: the file is missing, damaged, or not of anomalib's EfficientAD; a number in it is NaN;
            the image is too small.
    """
    file = TorchFile(path)
    content = file.content
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a checkpoint of anomalib")
    state = content.get("state_dict", content.get("model", content))
    weights = file.tensors(state)
    convolutions, statistics, quantiles = _sorted(weights)
    size = _model_size(path, convolutions)
    if padding is None:
        padding = _padding(content)
    border = _BORDER if find(content, "pad_maps") is not False else 0
    if image_size is None:
        image_size = _image_size(content)
    if min(image_size) < SMALLEST_SIDE:
        raise InputError(
            f"{path}: images of {image_size} pixels;"
            f" anomalib's encoder needs at least {SMALLEST_SIDE} per side"
        )
    model = AnomalibModel(size, image_size, AsInAnomalib(padding, border))
    for name, network in model.networks().items():
        _fill(path, name, network, convolutions)
    _set_statistics(path, model, statistics)
    _set_quantiles(path, model, quantiles)
    return model.eval()


Convolutions = dict[tuple[str, str, int, str], Tensor]
"""Network, en, de or neither, number, weight or bias → tensor."""


def _sorted(weights: dict[str, Tensor]) -> tuple[Convolutions, dict[str, Tensor], dict[str, Tensor]]:
    convolutions: Convolutions = {}
    statistics: dict[str, Tensor] = {}
    quantiles: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if found := _CONVOLUTION.search(name):
            network = "autoencoder" if found[1] == "ae" else found[1]
            convolutions[network, found[2], int(found[3]), found[4]] = tensor
        elif found := _STATISTIC.search(name):
            statistics[found[1]] = tensor
        elif found := _QUANTILE.search(name):
            quantiles[found[1]] = tensor
    return convolutions, statistics, quantiles


def _model_size(path: Path, convolutions: Convolutions) -> ModelSize:
    first = convolutions.get(("teacher", "", 1, "weight"))
    sizes: dict[int, ModelSize] = {WIDTHS[size][0]: size for size in ("s", "m")}
    if first is None or not any(name == "student" for name, *_ in convolutions):
        raise InputError(f"{path}: is not an EfficientAD of anomalib: expected its teacher and its student")
    if len(first) not in sizes:
        raise InputError(
            f"{path}: its teacher has {len(first)} channels after the first layer; expected"
            f" {' or '.join(map(str, sizes))}, as anomalib's small and medium"
        )
    return sizes[len(first)]


def _fill(path: Path, name: str, network: nn.Sequential, convolutions: Convolutions) -> None:
    """Copy the convolutions of anomalib's network into ours, in order: both are the paper's."""
    ours = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    order = {"en": 0, "": 0, "de": 1}
    keys = sorted(
        {(part, number) for network, part, number, _ in convolutions if network == name},
        key=lambda key: (order[key[0]], key[1]),
    )
    if len(keys) != len(ours):
        raise InputError(f"{path}: its {name} has {len(keys)} convolutions; expected {len(ours)}")
    with torch.no_grad():
        for (part, number), layer in zip(keys, ours, strict=True):
            assert layer.bias is not None
            for kind, target in (("weight", layer.weight), ("bias", layer.bias)):
                what = f"{name}.{part}conv{number}.{kind}"
                _copy(path, what, convolutions.get((name, part, number, kind)), target)


def _set_statistics(path: Path, model: AnomalibModel, statistics: dict[str, Tensor]) -> None:
    """Set mean and deviation of the teacher; unset ones leave its features as they are, as in anomalib."""
    if not any(bool(tensor.any()) for tensor in statistics.values()):
        return
    for kind, target in (("mean", model.teacher_mean), ("std", model.teacher_std)):
        tensor = statistics.get(kind)
        right = tensor is not None and tensor.numel() == target.numel()
        _copy(
            path, f"mean_std.{kind}", tensor.reshape(-1) if tensor is not None and right else tensor, target
        )
    if not bool((model.teacher_std > 0).all()):
        raise InputError(f"{path}: mean_std.std is 0 or less in a channel; expected a deviation above 0")


def _set_quantiles(path: Path, model: AnomalibModel, quantiles: dict[str, Tensor]) -> None:
    """Set the quantiles of the maps; unset ones leave the maps as they are, as in anomalib."""
    if not any(bool(tensor.any()) for tensor in quantiles.values()):
        return
    for row, kind in enumerate(_ROWS):
        for column, letter in enumerate("ab"):
            name = f"q{letter}_{kind}"
            tensor = quantiles.get(name)
            scalar = tensor.reshape(()) if tensor is not None and tensor.numel() == 1 else tensor
            _copy(path, f"quantiles.{name}", scalar, model.quantiles[row, column])
    found = ", ".join(f"{value:.6g}" for value in model.quantiles.flatten().tolist())
    if not bool((model.quantiles[:, 1] > model.quantiles[:, 0]).all()):
        raise InputError(f"{path}: its quantiles are {found}; expected each q_a below its q_b")


def _copy(path: Path, name: str, source: Tensor | None, target: Tensor) -> None:
    if source is None:
        raise InputError(f"{path}: expected a tensor {name}, found none")
    if source.shape != target.shape:
        found, wanted = ("×".join(map(str, item.shape)) or "a number" for item in (source, target))
        raise InputError(f"{path}: {name} is {found}, expected {wanted}")
    values = source.float()
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{path}: {name} has values that are NaN or infinite")
    with torch.no_grad():
        target.copy_(values)


def _padding(content: dict[object, object]) -> bool:
    """Say whether the networks pad: the settings of a checkpoint say so, or a pickled layer itself."""
    said = find(content.get("hyper_parameters"), "padding")
    if isinstance(said, bool):
        return said
    modules = content.get("model")
    while isinstance(modules, Record):
        children = modules.attributes().get("_modules") or {}
        below = children.get("teacher", children.get("model"))
        if below is None:
            first = children.get("conv1")
            found = first.attributes().get("padding") if isinstance(first, Record) else None
            return isinstance(found, tuple) and any(found)
        modules = below
    return False


def _image_size(content: dict[object, object]) -> Size:
    """Read the size of the images that a file names, as a setting or as what its pre-processor resizes to."""
    named = (find(content, name) for name in ("image_size", "input_size"))
    resized = (
        node.attributes().get("size")
        for node in walk(content)
        if isinstance(node, Record) and node.pickled_as.endswith(".Resize")
    )
    sizes = (_sides(value) for value in chain(named, resized))
    return next((size for size in sizes if size is not None), Size(256, 256))


def _sides(value: object) -> Size | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(side) is int for side in value):
        return Size(*value)
    return Size(value, value) if type(value) is int and value > 0 else None
