"""Models of OpenVINO (.xml and .bin) as ONNX graphs: proven, measured and rounded as any other.

Each operator is translated by itself (OpenVINO's specification of operation sets 1 to 16, ONNX's operator set
18). What comes of it must give what OpenVINO gives for the model as it came.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnxruntime
import openvino
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_runtime.open import one_line
from foundation.errors import InputError

OPSET = 18
_LARGEST_DIFFERENCE = 1e-3
"""Of the translation from what OpenVINO computes, as a share of the largest value."""
_TYPES = {
    "f16": TensorProto.FLOAT16,
    "f32": TensorProto.FLOAT,
    "f64": TensorProto.DOUBLE,
    "i8": TensorProto.INT8,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
    "u8": TensorProto.UINT8,
    "boolean": TensorProto.BOOL,
}
_SAME = {
    "Abs": "Abs",
    "Add": "Add",
    "Ceiling": "Ceil",
    "Cos": "Cos",
    "Divide": "Div",
    "Equal": "Equal",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "HSwish": "HardSwish",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "Log": "Log",
    "LogicalAnd": "And",
    "LogicalNot": "Not",
    "LogicalOr": "Or",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mish": "Mish",
    "Multiply": "Mul",
    "Negative": "Neg",
    "PRelu": "PRelu",
    "Power": "Pow",
    "Range": "Range",
    "Relu": "Relu",
    "ScatterNDUpdate": "ScatterND",
    "Select": "Where",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "SoftPlus": "Softplus",
    "Sqrt": "Sqrt",
    "Squeeze": "Squeeze",
    "Subtract": "Sub",
    "Tanh": "Tanh",
    "Tile": "Tile",
    "Unsqueeze": "Unsqueeze",
}
"""Operators that take and give the same in both."""
_REDUCTIONS = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"}


def read_openvino(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """Read a model of OpenVINO as ONNX.

    Args:
        path: of the .xml; the weights lie beside it under the same name, in .bin.

    Returns:
        The graph, and the bytes of both files.

    Raises:
        InputError: a file is missing, is not such a model, or is not of the other; it holds an operator that
            cannot be translated, or the translation computes something else.
    """
    weights = path.with_suffix(".bin")
    structure = _read(path)
    try:
        net = ElementTree.fromstring(structure)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not an OpenVINO model: {error}") from error
    if net.tag != "net":
        raise InputError(
            f"{path}: not an OpenVINO model: its first element is <{net.tag[:40]}>, expected <net>"
        )
    content = _read(weights)
    expected = _bytes_of_constants(path, net)
    if len(content) != expected:
        raise InputError(
            f"{weights}: holds {len(content)} bytes, and {path.name} wants {expected};"
            " expected the two files of one export"
        )
    try:
        model = openvino.Core().read_model(structure, content)
        _free_batch(model)
        graph = _Translation(path, model).graph()
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO does not read it: {one_line(error)}") from error
    _compare(path, model, graph)
    return graph, structure + content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _bytes_of_constants(path: Path, net: ElementTree.Element) -> int:
    try:
        places = [entry.attrib for entry in net.iter("data") if "offset" in entry.attrib]
        return max((int(place["offset"]) + int(place["size"]) for place in places), default=0)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not an OpenVINO model: a weight has no place in the .bin") from error


def _free_batch(model: openvino.Model) -> None:
    """Let a model that is fixed to one image take several, where that can be done."""
    shapes = {value: value.get_partial_shape() for value in model.inputs}
    if len(shapes) != 1:
        return
    [(value, shape)] = shapes.items()
    if shape.rank.is_static and len(shape) == 4 and shape[0] == 1:
        before = shape.to_string()
        shape[0] = -1
        try:
            model.reshape({value: shape})
        except RuntimeError:
            model.reshape({value: openvino.PartialShape(before)})


class _Translation:
    """A model, operator by operator."""

    def __init__(self, path: Path, model: openvino.Model) -> None:
        self._path, self._model = path, model
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._names: dict[tuple[str, int], str] = {}
        """Operator and number of its output → tensor."""
        self._constants: dict[str, NDArray[Any]] = {}

    def graph(self) -> onnx.ModelProto:
        for node in self._model.get_ordered_ops():
            kind = node.get_type_name()
            if kind == "Parameter":
                self._names[node.get_name(), 0] = node.output(0).get_any_name()
            elif kind == "Constant":
                self._names[node.get_name(), 0] = self._constant(node.data, node)
            elif kind != "Result":
                self._translate(node, kind)
        inputs = [self._described(value, value.get_any_name()) for value in self._model.inputs]
        outputs = []
        for place, value in enumerate(self._model.outputs):
            name = value.get_any_name() if value.get_names() else f"output_{place}"
            self._add("Identity", self._inputs(value.get_node()), name)
            outputs.append(self._described(value, name))
        made = helper.make_graph(self._nodes, "openvino", inputs, outputs, self._weights)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        model.producer_name = "openvino"
        return model

    def _translate(self, node: openvino.Node, kind: str) -> None:
        given = self._inputs(node)
        own = node.get_attributes()
        name = f"{node.get_name()}:0"
        if kind in _SAME:
            self._add(_SAME[kind], given, name)
        elif kind in _REDUCTIONS:
            self._add(kind, [given[0], self._vector(given[1])], name, keepdims=int(own["keep_dims"]))
        elif kind in _OTHERS:
            _OTHERS[kind](self, node, given, own, name)
        else:
            raise InputError(
                f"{self._path}: holds the operator {kind}, which cannot be translated; give the ONNX export"
            )
        for index in range(node.get_output_size()):
            self._names[node.get_name(), index] = f"{node.get_name()}:{index}"

    def _inputs(self, node: openvino.Node) -> list[str]:
        sources = [value.get_source_output() for value in node.inputs()]
        return [self._names[source.get_node().get_name(), source.get_index()] for source in sources]

    def _described(self, value: Any, name: str) -> onnx.ValueInfoProto:
        shape = value.get_partial_shape()
        sides = [
            f"side_{place}" if side.is_dynamic else side.get_length() for place, side in enumerate(shape)
        ]
        kind = value.get_element_type().get_type_name()
        return helper.make_tensor_value_info(name, self._type(kind), sides)

    def _type(self, name: str) -> int:
        if name not in _TYPES:
            raise InputError(f"{self._path}: holds numbers of type {name}; give the ONNX export")
        return _TYPES[name]

    def _add(self, operator: str, given: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, given, [name], name=name, **attributes))
        return name

    def _constant(self, values: NDArray[Any], node: openvino.Node | None = None) -> str:
        if node is not None:
            self._type(node.get_element_type().get_type_name())
        name = f"constant_{len(self._weights)}"
        self._weights.append(
            numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        )
        self._constants[name] = values
        return name

    def _value(self, name: str, node: openvino.Node) -> NDArray[Any]:
        """Give the value of an input that ONNX wants to know beforehand."""
        if name not in self._constants:
            raise InputError(
                f"{self._path}: an input of {node.get_type_name()} is computed, expected a constant;"
                " give the ONNX export"
            )
        return self._constants[name]

    def _vector(self, name: str) -> str:
        """Give a number or a list of numbers as a list."""
        if name in self._constants:
            return self._constant(self._constants[name].reshape(-1).astype(np.int64))
        shape = self._constant(np.array([-1]))
        place = len(self._nodes)
        whole = self._add("Cast", [name], f"{name}_whole_{place}", to=TensorProto.INT64)
        return self._add("Reshape", [whole, shape], f"{name}_list_{place}")

    # One method for each operator that is not the same; their arguments are those of ``_Rule``.

    def _convolution(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        weight = given[1]
        attributes: dict[str, Any] = {}
        if node.get_type_name() == "GroupConvolution":
            values = self._value(weight, node)
            attributes["group"] = values.shape[0]
            weight = self._constant(values.reshape(-1, *values.shape[2:]))
        attributes |= {"strides": _list(own["strides"]), "dilations": _list(own["dilations"])}
        self._add("Conv", [given[0], weight], name, **attributes, **_pads(own))

    def _transposed_convolution(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if len(given) > 2:
            raise InputError(f"{self._path}: {node.get_type_name()} with a shape; give the ONNX export")
        attributes: dict[str, Any] = {"strides": _list(own["strides"]), "dilations": _list(own["dilations"])}
        attributes["output_padding"] = _list(own["output_padding"])
        self._add("ConvTranspose", given, name, **attributes, **_pads(own))

    def _pool(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        attributes: dict[str, Any] = {"kernel_shape": _list(own["kernel"]), "strides": _list(own["strides"])}
        attributes["ceil_mode"] = int(str(own["rounding_type"]).lower() != "floor")
        if node.get_type_name() == "AvgPool":
            attributes["count_include_pad"] = int(not own.get("exclude-pad", own.get("exclude_pad")))
            self._add("AveragePool", given, name, **attributes, **_pads(own))
        else:
            self._add("MaxPool", given, name, **attributes, **_pads(own))

    def _adaptive_pool(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if any(self._value(given[1], node) != 1):
            raise InputError(
                f"{self._path}: {node.get_type_name()} to more than one cell; give the ONNX export"
            )
        self._add("GlobalAveragePool", given[:1], name)

    def _clamp(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        kind = helper.tensor_dtype_to_np_dtype(self._type(node.get_element_type().get_type_name()))
        bounds = [self._constant(np.array(own[bound], dtype=kind)) for bound in ("min", "max")]
        self._add("Clip", [given[0], *bounds], name)

    def _convert(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        kind = self._type(node.get_element_type().get_type_name())
        if given[0] in self._constants:  # weights in half precision
            values = self._constants[given[0]].astype(helper.tensor_dtype_to_np_dtype(kind))
            self._constants[name] = values
            self._weights.append(numpy_helper.from_array(values, name))
        else:
            self._add("Cast", given, name, to=kind)

    def _matmul(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        factors = []
        for side, factor in zip("ab", given, strict=True):
            rank = len(node.input_value("ab".index(side)).get_partial_shape())
            if own[f"transpose_{side}"] and rank > 1:
                order = [*range(rank - 2), rank - 1, rank - 2]
                factors.append(self._add("Transpose", [factor], f"{name}_{side}", perm=order))
            else:
                factors.append(factor)
        self._add("MatMul", factors, name)

    def _transpose(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        self._add("Transpose", given[:1], name, perm=self._value(given[1], node).tolist())

    def _reshape(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        shape = self._vector(given[1])
        self._add("Reshape", [given[0], shape], name, allowzero=int(not own["special_zero"]))

    def _concat(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        self._add("Concat", given, name, axis=int(own["axis"]))

    def _softmax(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        kind = "LogSoftmax" if node.get_type_name() == "LogSoftmax" else "Softmax"
        self._add(kind, given, name, axis=int(own["axis"]))

    def _split(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        axis = int(self._value(given[1], node))
        outputs = [f"{node.get_name()}:{index}" for index in range(node.get_output_size())]
        if node.get_type_name() == "Split":
            made = helper.make_node("Split", given[:1], outputs, axis=axis, num_outputs=len(outputs))
        else:
            made = helper.make_node("Split", [given[0], self._vector(given[2])], outputs, axis=axis)
        self._nodes.append(made)

    def _gather(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if own.get("batch_dims"):
            raise InputError(f"{self._path}: holds a Gather with batch_dims; give the ONNX export")
        self._add("Gather", given[:2], name, axis=int(self._value(given[2], node)))

    def _gather_elements(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        self._add("GatherElements", given, name, axis=int(own["axis"]))

    def _gather_nd(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        whole = self._add("Cast", given[1:], f"{name}_indices", to=TensorProto.INT64)
        self._add("GatherND", [given[0], whole], name, batch_dims=int(own["batch_dims"]))

    def _scatter_elements(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if own.get("reduction", "none") != "none":
            raise InputError(f"{self._path}: holds a ScatterElementsUpdate that adds; give the ONNX export")
        self._add("ScatterElements", given[:3], name, axis=int(self._value(given[3], node)))

    def _slice(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        data, start, stop, step, *axes = [given[0], *map(self._vector, given[1:])]
        if not axes:
            axes = [self._constant(np.arange(len(self._value(given[1], node))))]
        self._add("Slice", [data, start, stop, *axes, step], name)

    def _strided_slice(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if any(any(own[mask]) for mask in ("new_axis_mask", "ellipsis_mask")):
            raise InputError(f"{self._path}: holds a StridedSlice that adds sides; give the ONNX export")
        begin, end = (self._value(given[place], node).astype(np.int64) for place in (1, 2))
        stride = self._value(given[3], node) if len(given) > 3 else np.ones_like(begin)
        shrunk = [place for place, mask in enumerate(own["shrink_axis_mask"]) if mask]
        for place in range(len(begin)):
            if place in shrunk:
                end[place] = begin[place] + 1 if begin[place] != -1 else np.iinfo(np.int64).max
            else:
                if place < len(own["begin_mask"]) and own["begin_mask"][place]:
                    begin[place] = 0 if stride[place] > 0 else np.iinfo(np.int64).max
                if place < len(own["end_mask"]) and own["end_mask"][place]:
                    end[place] = np.iinfo(np.int64).max if stride[place] > 0 else np.iinfo(np.int64).min
        parts = [
            self._constant(part) for part in (begin, end, np.arange(len(begin)), stride.astype(np.int64))
        ]
        if shrunk:
            whole = self._add("Slice", [given[0], *parts], f"{name}_whole")
            self._add("Squeeze", [whole, self._constant(np.array(shrunk))], name)
        else:
            self._add("Slice", [given[0], *parts], name)

    def _pad(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        sides = [self._value(given[place], node).astype(np.int64) for place in (1, 2)]
        mode = {"symmetric": None}.get(str(own["pad_mode"]).lower(), str(own["pad_mode"]).lower())
        if mode not in ("constant", "edge", "reflect"):
            raise InputError(f"{self._path}: holds a Pad of mode {own['pad_mode']}; give the ONNX export")
        value = given[3:4] if mode == "constant" else []
        self._add("Pad", [given[0], self._constant(np.concatenate(sides)), *value], name, mode=mode)

    def _broadcast(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if str(own["mode"]).lower() not in ("numpy", "bidirectional"):
            raise InputError(f"{self._path}: holds a Broadcast of mode {own['mode']}; give the ONNX export")
        self._add("Expand", [given[0], self._vector(given[1])], name)

    def _shape_of(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        shape = self._add("Shape", given, f"{name}_i64")
        self._add("Cast", [shape], name, to=self._type(node.get_element_type().get_type_name()))

    def _top_k(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        values, places = name, f"{node.get_name()}:1"
        kind = node.output(1).get_element_type().get_type_name()
        self._nodes.append(
            helper.make_node(
                "TopK",
                [given[0], self._vector(given[1])],
                [values, f"{places}_i64"],
                name=name,
                axis=int(own["axis"]),
                largest=int(str(own["mode"]).lower() == "max"),
            )
        )
        self._add("Cast", [f"{places}_i64"], places, to=self._type(kind))

    def _einsum(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        self._add("Einsum", given, name, equation=own["equation"])

    def _elu(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        self._add("Elu", given, name, alpha=float(own["alpha"]))

    def _swish(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        scaled = self._add("Mul", given, f"{name}_scaled") if len(given) > 1 else given[0]
        self._add("Mul", [given[0], self._add("Sigmoid", [scaled], f"{name}_sigmoid")], name)

    def _gelu(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        if str(own.get("approximation_mode", "erf")).lower() != "erf":
            raise InputError(f"{self._path}: holds a Gelu that is approximated; give the ONNX export")
        half, one, root = (self._constant(np.array(value, dtype=np.float32)) for value in (0.5, 1.0, 2**-0.5))
        scaled = self._add("Mul", [given[0], root], f"{name}_scaled")
        grown = self._add("Add", [self._add("Erf", [scaled], f"{name}_erf"), one], f"{name}_grown")
        self._add("Mul", [self._add("Mul", [given[0], grown], f"{name}_double"), half], name)

    def _squared_difference(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        difference = self._add("Sub", given, f"{name}_difference")
        self._add("Mul", [difference, difference], name)

    def _fake_quantise(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        """Round to levels between bounds, as a model in INT8 does."""
        data, low, high, new_low, new_high = given
        steps = self._constant(np.array(own["levels"] - 1, dtype=np.float32))
        clipped = self._add("Min", [self._add("Max", [data, low], f"{name}_above"), high], f"{name}_within")
        above = self._add("Sub", [clipped, low], f"{name}_from_low")
        span = self._add("Sub", [high, low], f"{name}_span")
        share = self._add("Div", [above, span], f"{name}_share")
        level = self._add("Round", [self._add("Mul", [share, steps], f"{name}_steps")], f"{name}_level")
        new_span = self._add("Sub", [new_high, new_low], f"{name}_new_span")
        part = self._add("Div", [level, steps], f"{name}_part")
        self._add("Add", [self._add("Mul", [part, new_span], f"{name}_new"), new_low], name)

    def _interpolate(self, node: openvino.Node, given: list[str], own: Any, name: str) -> None:
        mode = str(own["mode"]).lower()
        by_size = str(own["shape_calculation_mode"]).lower() == "sizes"
        newer = node.get_type_info().version_id == "opset11"
        if mode not in ("linear", "linear_onnx", "nearest", "cubic") or any(
            [*own["pads_begin"], *own["pads_end"], own["antialias"]]
        ):
            raise InputError(f"{self._path}: holds an Interpolate of mode {mode}; give the ONNX export")
        target, axes = (given[1], given[2:3]) if newer else (given[1 if by_size else 2], given[3:4])
        attributes: dict[str, Any] = {
            "mode": "linear" if mode.startswith("linear") else mode,
            "coordinate_transformation_mode": str(own["coordinate_transformation_mode"]).lower(),
        }
        if mode == "nearest":
            attributes["nearest_mode"] = {"simple": "floor"}.get(
                str(own["nearest_mode"]).lower(), str(own["nearest_mode"]).lower()
            )
        if mode == "cubic":
            attributes["cubic_coeff_a"] = float(own["cube_coeff"])
        if axes:
            attributes["axes"] = self._value(axes[0], node).tolist()
        if by_size:
            self._add("Resize", [given[0], "", "", self._vector(target)], name, **attributes)
        else:
            self._add("Resize", [given[0], "", target], name, **attributes)


def _list(values: Any) -> list[int]:
    return [int(value) for value in values]


def _pads(own: Any) -> dict[str, Any]:
    auto = str(own.get("auto_pad", "explicit")).lower()
    if auto in ("same_upper", "same_lower", "valid"):
        return {"auto_pad": auto.upper()}
    return {"pads": [*_list(own["pads_begin"]), *_list(own["pads_end"])]}


_Rule = Callable[[_Translation, openvino.Node, list[str], Any, str], None]
_OTHERS: dict[str, _Rule] = {
    "AdaptiveAvgPool": _Translation._adaptive_pool,
    "AvgPool": _Translation._pool,
    "Broadcast": _Translation._broadcast,
    "Clamp": _Translation._clamp,
    "Concat": _Translation._concat,
    "Convert": _Translation._convert,
    "Convolution": _Translation._convolution,
    "ConvolutionBackpropData": _Translation._transposed_convolution,
    "Einsum": _Translation._einsum,
    "Elu": _Translation._elu,
    "FakeQuantize": _Translation._fake_quantise,
    "Gather": _Translation._gather,
    "GatherElements": _Translation._gather_elements,
    "GatherND": _Translation._gather_nd,
    "Gelu": _Translation._gelu,
    "GroupConvolution": _Translation._convolution,
    "Interpolate": _Translation._interpolate,
    "LogSoftmax": _Translation._softmax,
    "MatMul": _Translation._matmul,
    "MaxPool": _Translation._pool,
    "Pad": _Translation._pad,
    "Reshape": _Translation._reshape,
    "ScatterElementsUpdate": _Translation._scatter_elements,
    "ShapeOf": _Translation._shape_of,
    "Slice": _Translation._slice,
    "Softmax": _Translation._softmax,
    "SoftMax": _Translation._softmax,
    "Split": _Translation._split,
    "SquaredDifference": _Translation._squared_difference,
    "StridedSlice": _Translation._strided_slice,
    "Swish": _Translation._swish,
    "TopK": _Translation._top_k,
    "Transpose": _Translation._transpose,
    "VariadicSplit": _Translation._split,
}


def _compare(path: Path, model: openvino.Model, graph: onnx.ModelProto) -> None:
    """Run both on two images of noise.

    Raises:
        InputError: they give different values, or one does not run.
    """
    random = np.random.default_rng(0)
    images = {
        value.get_any_name(): _noise(random, value.get_partial_shape(), value.get_element_type().to_dtype())
        for value in model.inputs
    }
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    names = [output.name for output in graph.graph.output]
    try:
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        theirs = [value.copy() for value in compiled(images).values()]
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        ours = session.run(names, images)
    except Exception as error:  # each runtime has its own
        raise InputError(f"{path}: does not run: {one_line(error)}") from error
    for name, expected, found in zip(names, theirs, ours, strict=True):
        if expected.dtype.kind != "f":
            continue  # decisions: a hair's breadth may turn one
        apart = np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9)
        if expected.shape != found.shape or not apart <= _LARGEST_DIFFERENCE:
            raise InputError(
                f"{path}: {name} of its translation differs by {apart:.1e} of the largest value;"
                " give the ONNX export"
            )


def _noise(random: np.random.Generator, shape: Any, kind: Any) -> NDArray[Any]:
    sides = [
        side.get_length() if side.is_static else (2, 3, 256, 256)[min(place, 3)]
        for place, side in enumerate(shape)
    ]
    noise = random.random(sides)
    return (noise * 255 if np.dtype(kind).kind in "iu" else noise).astype(kind)
