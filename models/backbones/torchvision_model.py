"""A backbone from torchvision's classifiers, such as the paper's Wide ResNet-101."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine_runtime.open import one_line
from foundation.errors import InputError
from models.backbones.backbone import joined
from models.backbones.onnx_file import from_bgr
from models.backbones.trunk import Trunk
from models.contract_graph import OPSET
from models.efficientad.networks import normalised
from pictures.frames import Size

LAYERS = ("layer2", "layer3")
"""Of a ResNet, as in the paper."""


class TorchvisionBackbone:
    """Layers of a classifier with its best published weights, on the GPU where there is one.

    Args:
        name: in torchvision, such as "wide_resnet101_2".
        layers: names of the modules to join; when None ``LAYERS``.

    Raises:
        InputError: torchvision is not installed or not for this torch, there is no such model or layer, or
            its weights cannot be fetched.
    """

    def __init__(self, name: str, layers: Sequence[str] | None) -> None:
        extractor = _extractor(name, list(layers or LAYERS))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._extractor = extractor.to(self._device)

    @torch.no_grad()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """See ``Backbone``."""
        planes = normalised(torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2))
        return joined(list(self._extractor(planes).values()), images).float().cpu()


def _extractor(name: str, names: list[str]) -> torch.nn.Module:
    """Open a classifier so that it gives some of its layers."""
    what = f"torchvision:{name}"
    try:
        from torchvision.models import get_model
        from torchvision.models.feature_extraction import create_feature_extractor
    except (ImportError, RuntimeError) as error:  # the latter where it was made for another torch
        raise InputError(
            f"{what}: torchvision does not load beside torch {torch.__version__}: {one_line(error)}"
        ) from error
    try:
        model = get_model(name, weights="DEFAULT")
    except ValueError as error:
        raise InputError(f"{what}: {one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{what}: its weights cannot be fetched: {one_line(error)}") from error
    try:
        extractor: torch.nn.Module = create_feature_extractor(model.eval(), names)
    except ValueError as error:
        raise InputError(f"{what}: has no layers {' and '.join(names)}; name others with --layers") from error
    return extractor


def torchvision_trunk(name: str, size: Size, layers: Sequence[str] | None) -> Trunk:
    """Give layers of a classifier as a graph, for images of one size.

    Args:
        name: see ``TorchvisionBackbone``.
        size: of the images.
        layers: see ``TorchvisionBackbone``.

    Raises:
        InputError: see ``TorchvisionBackbone``; or torch cannot write the model as ONNX.
    """
    import onnx

    names = list(layers or LAYERS)
    extractor = _extractor(name, names).cpu()
    image = torch.zeros(1, 3, *size)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter that needs no package of its own is called the old
            torch.onnx.export(
                _InOrder(extractor, names),
                (image,),
                file := Path(folder) / "trunk.onnx",
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=names,
                dynamic_axes={"image": {0: "N"}},
            )
            graph = onnx.load(file).graph
        with torch.no_grad():
            shapes = [tuple(layer.shape[1:]) for layer in _InOrder(extractor, names)(image)]
    except Exception as error:  # torch raises whatever it likes
        raise InputError(f"torchvision:{name}: cannot be written as ONNX: {one_line(error)}") from error
    nodes, weights = from_bgr("image", list(graph.node), list(graph.initializer))
    return Trunk(
        name,
        "as torchvision's weights (BSD-3-Clause code, trained on ImageNet)",
        size,
        nodes,
        weights,
        {f"trunk/{layer}": (c, h, w) for layer, (c, h, w) in zip(names, shapes, strict=True)},
    )


class _InOrder(torch.nn.Module):
    """Gives the layers as a tuple, as the exporter wants them."""

    def __init__(self, extractor: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._extractor, self._names = extractor, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self._extractor(images)
        return tuple(found[name] for name in self._names)
