"""A backbone's first layers in torch, as a teacher with its weights or as a student that is to learn them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from foundation.errors import InputError
from models.backbones.trunk import IMAGE, Trunk


class Network(nn.Module):
    """The layers of a trunk.

    Args:
        trunk: not joined.
        learns: a student: its convolutions begin anew, each with a batch normalisation after it.

    Raises:
        InputError: the trunk has an operator that is not known here.
    """

    def __init__(self, trunk: Trunk, learns: bool) -> None:
        super().__init__()
        self._steps: list[_Step] = []
        self._features = tuple(trunk.features)
        self.layers = nn.ModuleDict()
        constants = {weight.name: numpy_helper.to_array(weight) for weight in trunk.weights}
        for node in trunk.nodes:
            if node.op_type not in ("Add", "Clip", "Conv", "MaxPool", "Relu", "Sub"):
                raise InputError(
                    f"--backbone: {trunk.name} holds the operator {node.op_type}, which a student of stfpm"
                    " cannot imitate; use lite0, lite1 or lite2"
                )
            step = _Step(node, constants)
            if node.op_type == "Conv":
                self.layers[key(step.output)] = step.convolution(learns)
            self._steps.append(step)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Give the features, N×C×h×w each.

        Args:
            images: N×3×H×W float32, BGR from 0 to 255.
        """
        values = {IMAGE: images}
        for step in self._steps:
            given = [values.get(name, name) for name in step.inputs]
            values[step.output] = step(given, self.layers)
        return [values[name] for name in self._features]

    def folded(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Give each convolution, by its output, with its batch normalisation inside.

        Returns:
            Output → weight, O×I×k×k float32, and bias, O float32.
        """
        found = {}
        for step in self._steps:
            if key(step.output) in self.layers:
                conv, norm = self.layers[key(step.output)].children()
                assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                assert norm.running_mean is not None and norm.running_var is not None
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight = conv.weight * scale[:, None, None, None]
                bias = norm.bias - norm.running_mean * scale
                found[step.output] = (weight.detach().numpy(), bias.detach().numpy())
        return found


def key(output: str) -> str:
    """Give the name of a module, in which torch allows no dot."""
    return output.replace(".", "_")


class _Step:
    """One node."""

    def __init__(self, node: Any, constants: dict[str, NDArray[Any]]) -> None:
        self.operator = node.op_type
        self.inputs, [self.output] = list(node.input), list(node.output)
        self._own = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        self._constants = {
            name: torch.from_numpy(constants[name].copy()) for name in node.input if name in constants
        }

    def convolution(self, learns: bool) -> nn.Sequential:
        weight = self._constants[self.inputs[1]]
        outputs, inputs, height, width = weight.shape
        groups, stride = self._own.get("group", 1), tuple(self._own.get("strides", (1, 1)))
        conv = nn.Conv2d(
            inputs * groups,
            outputs,
            (height, width),
            stride,
            groups=groups,
            bias=not learns,
        )
        if learns:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out" if groups == 1 else "fan_in")
            return nn.Sequential(conv, nn.BatchNorm2d(outputs))
        assert conv.bias is not None
        with torch.no_grad():
            conv.weight.copy_(weight)
            conv.bias.copy_(self._constants[self.inputs[2]] if len(self.inputs) > 2 else torch.zeros(outputs))
        return nn.Sequential(conv)

    def __call__(self, given: Sequence[Tensor | str], layers: nn.ModuleDict) -> Tensor:
        values = [self._constants.get(value) if isinstance(value, str) else value for value in given]
        first = values[0]
        assert first is not None
        if self.operator == "Conv":
            top, left, bottom, right = self._own.get("pads", (0, 0, 0, 0))
            found: Tensor = layers[key(self.output)](functional.pad(first, (left, right, top, bottom)))
            return found
        if self.operator == "Clip":
            least, most = (None if value is None else float(value) for value in values[1:3])
            return first.clamp(least, most)
        if self.operator == "Relu":
            return first.relu()
        if self.operator == "MaxPool":
            top, left, bottom, right = self._own.get("pads", (0, 0, 0, 0))
            padded = functional.pad(first, (left, right, top, bottom), value=-torch.inf)
            return functional.max_pool2d(padded, self._own["kernel_shape"], self._own.get("strides", 1))
        second = values[1]
        assert second is not None
        return first + second if self.operator == "Add" else first - second
