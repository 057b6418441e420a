"""Limits of the values in a graph: cutting off at 0 and 1 is taken away, others are found out."""

import math
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Values = NDArray[np.float64]

_SAME_VALUES = frozenset(
    {
        "Identity",
        "Squeeze",
        "Unsqueeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Cast",
        "Slice",
        "Gather",
        "Expand",
    }
    | {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Dropout"}
    | {"ReduceMax", "ReduceMean", "ReduceMin"}
)
"""Operators that give no value higher than the highest that they take."""
_BOUNDED = {"Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0, "Tanh": 1.0, "Softsign": 1.0, "Erf": 1.0}


class _Constants:
    """What tensors of a graph are constant: weights, nodes that say so, and copies and casts of these."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._nodes = {output: node for node in graph.node for output in node.output}

    def value(self, name: str) -> Values | None:
        if name in self._weights:
            return numpy_helper.to_array(self._weights[name]).astype(np.float64)
        node = self._nodes.get(name)
        if node is None:
            return None
        if node.op_type in {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"}:
            return self.value(node.input[0])
        if node.op_type != "Constant" or node.attribute[0].name.startswith(("sparse", "value_string")):
            return None
        value = helper.get_attribute_value(node.attribute[0])
        array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)
        return array.astype(np.float64)

    def bound(self, node: onnx.NodeProto, place: int, attribute: str, without: float) -> float | None:
        """Give a bound of a Clip, an input or, before operator set 11, an attribute; None if unknown."""
        for entry in node.attribute:
            if entry.name == attribute:
                return float(entry.f)
        if len(node.input) <= place or not node.input[place]:
            return without
        value = self.value(node.input[place])
        return float(value.max()) if value is not None and value.size == 1 else None

    def split(self, node: onnx.NodeProto) -> tuple[str, Values] | None:
        """Give what changes and what is constant of the two inputs of a node."""
        if len(node.input) != 2:
            return None
        for place in (0, 1):
            value = self.value(node.input[place])
            if value is not None and value.size:
                return node.input[1 - place], value
        return None


def unlimit(graph: onnx.GraphProto) -> None:
    """Put nothing in the place of nodes that cut values off at 0 and 1: Clip, or Min and Max."""
    constants = _Constants(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def is_half(node: onnx.NodeProto, operator: str, value: float) -> bool:
        found = constants.split(node) if node.op_type == operator else None
        return found is not None and bool((found[1] == value).all())

    for node in graph.node:
        if node.op_type == "Clip":
            lower, upper = (
                constants.bound(node, 1, "min", -math.inf),
                constants.bound(node, 2, "max", math.inf),
            )
            if (lower, upper) == (0, 1):
                _replace_by_nothing(node, node.input[0])
            continue
        for first, second in ((("Min", 1), ("Max", 0)), (("Max", 0), ("Min", 1))):
            after = readers.get(node.output[0], []) if node.output else []
            if is_half(node, *first) and len(after) == 1 and is_half(after[0], *second):
                for half in (node, after[0]):
                    changing = constants.split(half)
                    assert changing is not None
                    _replace_by_nothing(half, changing[0])


def _replace_by_nothing(node: onnx.NodeProto, source: str) -> None:
    kept = helper.make_node("Identity", [source], [node.output[0]], name=node.name)
    node.CopyFrom(kept)


def highest_value(graph: onnx.GraphProto, name: str) -> float:
    """Find a limit that no value of a tensor can exceed; infinite if none is known."""
    constants = _Constants(graph)
    nodes = {output: node for node in graph.node for output in node.output}

    def limit(name: str) -> float:
        node = nodes.get(name)
        if node is None:
            return math.inf
        if node.op_type in _BOUNDED:
            return _BOUNDED[node.op_type]
        if node.op_type == "Clip":
            upper = constants.bound(node, 2, "max", math.inf)
            return min(limit(node.input[0]), math.inf if upper is None else upper)
        if node.op_type in _SAME_VALUES or (node.op_type == "Resize" and not _is_cubic(node)):
            return limit(node.input[0])
        found = constants.split(node)
        if found is None or node.op_type not in _CHANGES:
            return math.inf
        source, value = found
        return _CHANGES[node.op_type](limit(source), value, node.input[0] == source)

    return limit(name)


def _is_cubic(resize: onnx.NodeProto) -> bool:
    """Say whether it goes beyond the values that it lies between."""
    return any(entry.name == "mode" and entry.s == b"cubic" for entry in resize.attribute)


def _added(limit: float, value: Values, _: bool) -> float:
    return limit + float(value.max())


def _subtracted(limit: float, value: Values, first: bool) -> float:
    return limit - float(value.min()) if first else math.inf


def _multiplied(limit: float, value: Values, _: bool) -> float:
    return limit * float(value.max() if limit > 0 else value.min()) if (value > 0).all() else math.inf


def _divided(limit: float, value: Values, first: bool) -> float:
    return _multiplied(limit, 1 / value, first) if first and (value > 0).all() else math.inf


def _least(limit: float, value: Values, _: bool) -> float:
    return min(limit, float(value.max()))


def _most(limit: float, value: Values, _: bool) -> float:
    return max(limit, float(value.max()))


_CHANGES: dict[str, Callable[[float, Values, bool], float]] = {
    "Add": _added,
    "Sub": _subtracted,
    "Mul": _multiplied,
    "Div": _divided,
    "Min": _least,
    "Max": _most,
}
