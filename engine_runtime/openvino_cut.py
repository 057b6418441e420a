"""Cuts a model in two for OpenVINO, whose precision holds for a whole compiled model."""

from collections.abc import Sequence
from typing import NamedTuple

import openvino
from openvino import opset13 as operators

from engine_runtime.engine import QUANTILES


class Cut(NamedTuple):
    """Two models that together compute what one did."""

    first: openvino.Model
    """Takes the inputs of the whole; its output k is the input ``joints[k]`` of the rest."""
    rest: openvino.Model
    """Takes the inputs of the whole, too, and gives its outputs."""
    joints: Sequence[str]


def cut(model: openvino.Model, prefixes: tuple[str, ...]) -> Cut | None:
    """Cut off the nodes that stay in full precision, and all that computes with what they give.

    What only computes with the quantiles goes with them.

    Args:
        model: keeps contract 1; it is taken apart.
        prefixes: of the nodes' names.

    Returns:
        None where nothing is left to the first model.
    """
    rest: set[str] = set()
    for node in model.get_ordered_ops():
        name, read = (
            node.get_friendly_name(),
            {value.get_node().get_friendly_name() for value in node.input_values()},
        )
        if name == QUANTILES or name.startswith(prefixes) or not rest.isdisjoint(read):
            rest.add(name)
    joints: list[str] = []
    parameters, results = [], []
    for node in model.get_ordered_ops():
        if node.get_friendly_name() in rest or node.get_type_name() in ("Constant", "Parameter"):
            continue
        for output in node.outputs():
            readers = [
                reader
                for reader in output.get_target_inputs()
                if reader.get_node().get_friendly_name() in rest
            ]
            if not readers:
                continue
            joints.append(f"joint {len(joints)}")
            parameter = operators.parameter(output.get_partial_shape(), output.get_element_type())
            parameter.output(0).get_tensor().set_names({joints[-1]})
            for reader in readers:
                reader.replace_source_output(parameter.output(0))
            parameters.append(parameter)
            results.append(operators.result(output))
    if not joints:
        return None
    inputs = model.get_parameters()
    first = openvino.Model(results, inputs, "first")
    return Cut(first, openvino.Model(model.get_results(), [*inputs, *parameters], "rest"), joints)
