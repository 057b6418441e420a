"""What a graph says of its inputs and outputs."""

import onnx


def inputs_of(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Give the inputs by name; older exporters list the weights among them, which are left out."""
    weights = {weight.name for weight in graph.initializer}
    return {value.name: value.type.tensor_type for value in graph.input if value.name not in weights}


def dimensions(tensor: onnx.TypeProto.Tensor) -> list[int | str]:
    """Give the sides of a tensor: a number where it is fixed, else its name, or "?" where it has none."""
    return [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in tensor.shape.dim
    ]
