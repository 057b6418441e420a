"""A backbone from an ONNX file: a classifier in float, or in int8 of QLinear operators."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13
from torch import Tensor

from engine_runtime.open import one_line
from foundation.errors import InputError
from models.backbones.backbone import STRIDES, joined
from models.backbones.dequantised import dequantised, is_quantised
from models.efficientad.networks import MEAN, STD


class OnnxBackbone:
    """The layers of a classifier, cut off behind the last that is needed, with free image height and width.

    OpenVINO ran MobileNetV2 ten times faster than ONNX Runtime.

    Args:
        path: input N×3×H×W float, RGB, after subtraction of ImageNet's mean and division by its deviation.
        layers: names of the tensors to join; when None those of ``dequantised``, or of a graph in float the
            last of the widest tensors of each of ``STRIDES``: in a ResNet the ends of layer2 and layer3, as
            in the paper.
        threads: to compute with.

    Raises:
        InputError: the file is missing or no ONNX, is not such a classifier, or has no such layers.
    """

    def __init__(self, path: Path, layers: Sequence[str] | None, threads: int) -> None:
        content, found = _float_model(path)
        core = openvino.Core()
        try:
            model = core.read_model(content)
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO does not take it: {one_line(error)}") from error
        _check_input(path, model)
        wanted = layers or found
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        try:
            ports = _widest(path, model) if wanted is None else _named(path, model, wanted)
            trunk = openvino.Model([opset13.result(port) for port in ports], model.get_parameters())
            trunk.reshape([-1, 3, -1, -1])
            self._compiled = core.compile_model(trunk, "CPU", settings)
        except RuntimeError as error:
            raise InputError(f"{path}: does not take images of any size: {one_line(error)}") from error

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """See ``Backbone``."""
        scaled = (images.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        results = self._compiled(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
        return joined([torch.from_numpy(result) for result in results.values()], images)


def _float_model(path: Path) -> tuple[bytes, list[str] | None]:
    """Read a model, in float whatever it was, and the layers that are to be joined where that is known."""
    import onnx

    try:
        model = onnx.load(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        raise InputError(f"{path}: is not an ONNX file") from error
    if not is_quantised(model):
        return model.SerializeToString(), None
    model, layers = dequantised(model, path)
    return model.SerializeToString(), layers


def _check_input(path: Path, model: Any) -> None:
    shapes = [port.get_partial_shape() for port in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        found = ", ".join(map(str, shapes)) or "none"
        raise InputError(f"{path}: found inputs {found}; expected one of N×3×H×W")


def _named(path: Path, model: Any, layers: Sequence[str]) -> list[Any]:
    ports = {name: port for node in model.get_ops() for port in node.outputs() for name in port.get_names()}
    for name in layers:
        if name not in ports or len(ports[name].get_partial_shape()) != 4:
            raise InputError(f"{path}: has no tensor N×C×h×w named {name!r}, which --layers asks for")
    return [ports[name] for name in layers]


def _widest(path: Path, model: Any) -> list[Any]:
    if model.is_dynamic():
        model.reshape([1, 3, 256, 256])
    side = model.inputs[0].get_shape()[2]
    tensors = [port for node in model.get_ordered_ops() for port in node.outputs()]
    maps = [port for port in tensors if len(port.get_shape()) == 4]
    chosen = []
    for stride in STRIDES:
        fitting = [port for port in maps if port.get_shape()[2] * stride == side]
        if not fitting:
            raise InputError(f"{path}: has no features of stride {stride}; name others with --layers")
        widest = max(port.get_shape()[1] for port in fitting)
        chosen.append([port for port in fitting if port.get_shape()[1] == widest][-1])
    return chosen
