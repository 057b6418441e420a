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
from foundation.files import sha256
from models.backbones.backbone import STRIDES, joined
from models.backbones.dequantised import dequantised, is_quantised
from models.backbones.trunk import IMAGE, Trunk
from models.contract_graph import OPSET
from models.efficientad.networks import MEAN, STD
from pictures.frames import Size


class OnnxBackbone:
    """The layers of a classifier, cut off after the last that is needed, with free image height and width.

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
    ports = {name: port for node in _computing(model) for port in node.outputs() for name in port.get_names()}
    for name in layers:
        if name not in ports or len(ports[name].get_partial_shape()) != 4:
            raise InputError(f"{path}: has no tensor N×C×h×w named {name!r}, which --layers asks for")
    return [ports[name] for name in layers]


def _computing(model: Any) -> list[Any]:
    """Give the nodes in order, without those that only mark an output: nothing can be cut off after them."""
    return [node for node in model.get_ordered_ops() if node.get_type_name() != "Result"]


def _widest(path: Path, model: Any) -> list[Any]:
    if model.is_dynamic():
        model.reshape([1, 3, 256, 256])
    side = model.inputs[0].get_shape()[2]
    tensors = [port for node in _computing(model) for port in node.outputs()]
    maps = [port for port in tensors if len(port.get_shape()) == 4]
    chosen = []
    for stride in STRIDES:
        fitting = [port for port in maps if port.get_shape()[2] * stride == side]
        if not fitting:
            raise InputError(f"{path}: has no features of stride {stride}; name others with --layers")
        widest = max(port.get_shape()[1] for port in fitting)
        chosen.append([port for port in fitting if port.get_shape()[1] == widest][-1])
    return chosen


def onnx_trunk(path: Path, size: Size, layers: Sequence[str] | None) -> Trunk:
    """Cut the layers of a classifier out of its file, for images of one size.

    Args:
        path: see ``OnnxBackbone``.
        size: of the images.
        layers: see ``OnnxBackbone``.

    Raises:
        InputError: see ``OnnxBackbone``.
    """
    import onnx
    from onnx import shape_inference, version_converter

    content, found = _float_model(path)
    model = onnx.load_model_from_string(content)
    if len(model.graph.input) < 1:
        raise InputError(f"{path}: has no input; expected one of N×3×H×W")
    initial = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initial]
    dims = [value.type.tensor_type.shape.dim for value in inputs]
    if len(inputs) != 1 or len(dims[0]) != 4 or dims[0][1].dim_value not in {0, 3}:
        given = ", ".join("×".join(d.dim_param or str(d.dim_value) for d in dim) for dim in dims) or "none"
        raise InputError(f"{path}: found inputs {given}; expected one of N×3×H×W")
    try:
        if model.opset_import[0].version != OPSET:
            model = version_converter.convert_version(model, OPSET)
        image = model.graph.input[0]
        for dim, value in zip(image.type.tensor_type.shape.dim, (1, 3, *size), strict=True):
            dim.ClearField("dim_param")
            dim.dim_value = value
        del model.graph.value_info[:]
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise InputError(f"{path}: does not take images of {size}: {one_line(error)}") from error
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    wanted = layers or found or _widest_of(path, inferred, shapes, size)
    for name in wanted:
        if name not in shapes or not all(shapes[name]):
            raise InputError(f"{path}: has no tensor N×C×h×w named {name!r}, which --layers asks for")
    nodes, weights = _needed(model.graph, wanted)
    return Trunk(
        path.stem,
        f"as its file says; SHA-256 {sha256(path)}",
        size,
        *from_bgr(image.name, nodes, weights),
        {f"trunk/{name}": (shapes[name][1], shapes[name][2], shapes[name][3]) for name in wanted},
    )


def _widest_of(path: Path, graph: Any, shapes: dict[str, tuple[int, ...]], size: Size) -> list[str]:
    """See ``_widest``."""
    chosen = []
    ordered = [name for node in graph.node for name in node.output if name in shapes]
    for stride in STRIDES:
        fitting = [name for name in ordered if shapes[name][2] * stride == size.height]
        if not fitting:
            raise InputError(f"{path}: has no features of stride {stride}; name others with --layers")
        widest = max(shapes[name][1] for name in fitting)
        chosen.append([name for name in fitting if shapes[name][1] == widest][-1])
    return chosen


def _needed(graph: Any, wanted: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Give the nodes and weights that tensors depend on."""
    needed, nodes = set(wanted), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    return nodes[::-1], [weight for weight in graph.initializer if weight.name in needed]


def from_bgr(image: str, nodes: list[Any], weights: list[Any]) -> tuple[list[Any], list[Any]]:
    """Put before a classifier's input what makes it of ``IMAGE``; names of the file get a prefix."""
    from onnx import NodeProto, TensorProto, helper, numpy_helper

    def named(name: str) -> str:
        return f"trunk/{name}" if name else ""

    order = numpy_helper.from_array(np.array([2, 1, 0], dtype=np.int64), "trunk/rgb_order")
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) * 255 for values in (MEAN, STD))
    before = [
        helper.make_node("Gather", [IMAGE, "trunk/rgb_order"], ["trunk/rgb"], name="trunk/rgb", axis=1),
        helper.make_node("Sub", ["trunk/rgb", "trunk/mean"], ["trunk/centred"], name="trunk/centred"),
        helper.make_node("Div", ["trunk/centred", "trunk/std"], [named(image)], name="trunk/scaled"),
    ]
    renamed_nodes, renamed_weights = [], []
    for index, node in enumerate(nodes):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"trunk/{index}_{node.op_type}"
        copy.input[:] = [named(name) for name in node.input]
        copy.output[:] = [named(name) for name in node.output]
        renamed_nodes.append(copy)
    for weight in weights:
        tensor = TensorProto()
        tensor.CopyFrom(weight)
        tensor.name = named(weight.name)
        renamed_weights.append(tensor)
    limits = [numpy_helper.from_array(mean, "trunk/mean"), numpy_helper.from_array(std, "trunk/std")]
    return [*before, *renamed_nodes], [order, *limits, *renamed_weights]
