"""FP32 → FP16 in the ONNX graph itself, as strongly typed networks want it.

Convolutions take nearly all the time, and what lies between them only moves numbers; both are done in half.
The rest stays FP32: from the camera's uint8 to the networks' input, and from the features on, where
differences are squared, averaged and compared with quantiles (`docs/engines.md` says what either costs in
scores); and what the graph itself asks to be left (`Graph.fp32_tensors`).
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_build.graph import Graph
from foundation.errors import InputError

HALF = frozenset({"AveragePool", "Conv", "MaxPool", "Relu", "Resize"})
"""Operators that are done in half."""
_BETWEEN = frozenset({"Add", "Clip", "Concat", "Pad"})
"""Operators that are done in half between those, as sums of a network; elsewhere they are arithmetic."""

_LARGEST = float(np.finfo(np.float16).max)


def halved(graph: Graph, operators: Collection[str] = HALF) -> bytes:
    """Give a graph with some operators in half precision; inputs and outputs keep their types.

    Args:
        graph: keeps contract 1, in FP32.
        operators: done in half wherever they compute with floats, and with them what lies between them.

    Returns:
        The ONNX model, serialised.

    Raises:
        InputError: a weight does not fit into half precision, or the graph has control flow.
    """
    model = onnx.load_model_from_string(graph.content)
    for node in model.graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise InputError(
                f"node {node.output[0]} is a {node.op_type}, which is not built in half precision"
            )
    weights = {weight.name: weight for weight in model.graph.initializer}
    types = _float_tensors(model)
    made: list[onnx.NodeProto] = []
    constants: dict[str, TensorProto] = {}
    in_half: dict[str, str] = {}  # FP32 tensor → its half twin

    def half_of(name: str) -> str:
        if name not in in_half:
            in_half[name] = f"{name}/half"
            if name in weights:
                constants[in_half[name]] = _half(weights[name], in_half[name])
            else:
                made.append(_cast(name, in_half[name], TensorProto.FLOAT16))
        return in_half[name]

    chosen = _made_in_half(graph, model, operators, types)
    wanted = {value.name for value in model.graph.output}
    wanted.update(name for node in model.graph.node if node.output[0] not in chosen for name in node.input)
    for node in model.graph.node:
        if node.output[0] not in chosen:
            made.append(node)
            continue
        # What else Resize reads are sizes and scales, which have types of their own.
        read = node.input[:1] if node.op_type == "Resize" else node.input
        inputs = [half_of(name) if name in types else name for name in read] + list(node.input[len(read) :])
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        outputs = [f"{name}/half" for name in node.output]
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.extend(outputs)
        made.append(twin)
        for name, half in zip(node.output, outputs, strict=True):
            in_half[name] = half
            if name in wanted:
                made.append(_cast(half, name, TensorProto.FLOAT))
    read_names = {name for node in made for name in node.input}
    kept = [weight for name, weight in weights.items() if name in read_names]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(made)
    model.graph.initializer.extend([*kept, *constants.values()])
    content: bytes = model.SerializeToString()
    return content


def half_share(content: bytes) -> float:
    """Give the share of a graph's convolutions that are done in half."""
    graph = onnx.load_model_from_string(content).graph
    types = {weight.name: weight.data_type for weight in graph.initializer}
    kinds = [types.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    return kinds.count(TensorProto.FLOAT16) / max(1, len(kinds))


def _made_in_half(
    graph: Graph, model: onnx.ModelProto, operators: Collection[str], floats: set[str]
) -> set[str]:
    """Name the tensors that nodes give which are done in half."""
    weights = {weight.name for weight in model.graph.initializer}
    floats = floats - graph.fp32_tensors()
    chosen: set[str] = set()
    for node in model.graph.node:
        # What Clip and Pad read beside their data are bounds and amounts.
        read = set(node.input[:1] if node.op_type in ("Clip", "Pad") else node.input)
        lies_between = node.op_type in _BETWEEN and read & chosen and read <= chosen | weights
        wanted = node.op_type in operators or lies_between
        if wanted and node.output[0] in floats:
            chosen.update(node.output)
    return chosen


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Name the tensors that hold FP32."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    named = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return named | {
        weight.name for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT
    }


def _half(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > _LARGEST:
        raise InputError(
            f"weight {weight.name!r} reaches {largest:g}; half precision holds at most {_LARGEST:g}:"
            " build it with --precision fp32"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=to)
