"""An int8 ONNX classifier, back in float.

A quantised tensor ``q`` stands for ``(q - zero_point) * scale``. Weights are dequantised once; activations
stay in float and are clamped to the range their int8 type could hold, which is also where the ReLU6 of
MobileNetV2 went when it was quantised.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from models.backbones.backbone import STRIDES


def is_quantised(model: Any) -> bool:
    """Say whether an ONNX model is made of QLinear operators."""
    return any(node.op_type.startswith("QLinear") for node in model.graph.node)


def dequantised(source: Any, path: Path) -> tuple[Any, list[str]]:
    """Write a quantised graph in float.

    Args:
        source: ONNX model of QLinearConv, QLinearAdd, QLinearGlobalAveragePool, QLinearMatMul, Reshape,
            QuantizeLinear and DequantizeLinear nodes.
        path: its file, for what is said about mistakes.

    Returns:
        The float model with free batch, height and width, and the names of the tensors to join: the last
        expansion of the first stage of each of ``STRIDES``.

    Raises:
        InputError: it holds another operator, or no features of a needed stride.
    """
    from onnx import TensorProto, helper, numpy_helper

    image = source.graph.input[0].name if source.graph.input else ""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    made = FloatGraph(image, constants)
    for node in source.graph.node:
        if node.op_type not in OPERATORS:
            raise InputError(f"{path}: node {node.output[0]} is a {node.op_type}; expected a QLinear graph")
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        made.convert(node.op_type, list(node.input), node.output[0], attributes)
    missing = [str(stride) for stride in STRIDES if stride not in made.taps]
    if missing:
        raise InputError(f"{path}: has no expanding convolution of stride {' and '.join(missing)}")
    graph = helper.make_graph(
        made.nodes,
        "backbone",
        [helper.make_tensor_value_info(image, TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(source.graph.output[0].name, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in made.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, [made.taps[stride] for stride in STRIDES]


OPERATORS = {
    "QLinearConv": "Conv",
    "QLinearAdd": "Add",
    "QLinearMatMul": "MatMul",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QuantizeLinear": "Identity",
    "DequantizeLinear": "Identity",
    "Reshape": "Flatten",  # after the pooling: the batch is free, the rest becomes one row
}
"""What each quantised operator computes."""


class FloatGraph:
    """The float twin of a quantised graph while it is walked.

    Args:
        image: name of the input.
        constants: the quantised graph's initialisers.
    """

    def __init__(self, image: str, constants: dict[str, NDArray[Any]]) -> None:
        self.constants = constants
        self.nodes: list[Any] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.taps: dict[int, str] = {}
        self._stride = {image: 1}
        self._width: dict[int, int] = {}

    def convert(self, kind: str, given: list[str], name: str, attributes: dict[str, Any]) -> None:
        """Add the twin of a quantised node with the inputs ``given`` and the output ``name``."""
        operator = OPERATORS[kind]
        if kind == "QLinearConv":
            x, x_scale, _, w, w_scale, w_zero, y_scale, y_zero, *bias = given
            inputs = [x, self._operand(w, w_scale, w_zero)]
            for b in bias:  # int32 on the scale of input times weight
                scale = self.constants[x_scale] * self.constants[w_scale]
                self.weights[b] = (self.constants[b] * scale).astype(np.float32)
                inputs.append(b)
            self._node(operator, inputs, f"{name}_unclamped", **attributes)
            self._clamp(f"{name}_unclamped", name, y_scale, y_zero)
            self._follow(x, w, name, attributes)
        elif kind in {"QLinearAdd", "QLinearMatMul"}:
            a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = given
            operands = [self._operand(a, a_scale, a_zero), self._operand(b, b_scale, b_zero)]
            self._node(operator, operands, f"{name}_unclamped")
            self._clamp(f"{name}_unclamped", name, y_scale, y_zero)
        elif kind == "QLinearGlobalAveragePool":
            self._node(operator, given[:1], f"{name}_unclamped")
            self._clamp(f"{name}_unclamped", name, *given[3:5])
        elif kind == "QuantizeLinear":
            self._clamp(given[0], name, *given[1:3])
        else:
            self._node(operator, given[:1], name)
        self._stride.setdefault(name, self._stride.get(given[0], 0))

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))

    def _operand(self, name: str, scale: str, zero: str) -> str:
        """Dequantise a constant; an activation is float already."""
        if name in self.constants:
            self.weights[name] = self._real(self.constants[name], scale, zero)
        return name

    def _clamp(self, value: str, name: str, scale: str, zero: str) -> None:
        """Clamp a value to what its quantised type can hold."""
        limits = np.iinfo(self.constants[zero].dtype)
        self.weights[f"{name}_least"] = self._real(np.array(limits.min), scale, zero)
        self.weights[f"{name}_most"] = self._real(np.array(limits.max), scale, zero)
        self._node("Clip", [value, f"{name}_least", f"{name}_most"], name)

    def _real(self, quantised: NDArray[Any], scale: str, zero: str) -> NDArray[np.float32]:
        offset = quantised.astype(np.float32) - self.constants[zero].astype(np.float32)
        return np.asarray(offset * self.constants[scale], dtype=np.float32)

    def _follow(self, x: str, w: str, name: str, attributes: dict[str, Any]) -> None:
        """Note a convolution's stride; a tap is the last to expand as its stride's first stage does."""
        stride = self._stride[name] = self._stride[x] * attributes["strides"][0]
        outputs, inputs_per_group = self.constants[w].shape[:2]
        expands = attributes["group"] == 1 and outputs > inputs_per_group
        if expands and outputs == self._width.setdefault(stride, outputs):
            self.taps[stride] = name
