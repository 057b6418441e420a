"""Exports of anomalib, brought to contract 1.

They take N×3×H×W float32, RGB from 0 to 1, and give a map that their post-processing has scaled and cut off
at 0 and 1. Here the map stands alone, unlimited, and calibration sets its scale; the score is its largest
value, as for every model.

Older ones, up to version 1, lie beside a ``metadata.json`` and do not name their map: it is the first output.
Before version 1 their input is normalised as that file says.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from onnx.utils import Extractor

from engine_build.graph_interface import dimensions, inputs_of
from engine_build.limits import highest_value, unlimit
from engine_runtime.engine import ANOMALY_MAP, CONTRACT, FRAMES, MAPS, QUANTILES, SCORE, map_output
from foundation.errors import InputError
from pictures.frames import Size
from pictures.heatmap import HIGHEST_VALUE

_PREFIX = "anomalib/"
_MAP = "local"
_AXES_ARE_INPUTS = 18
"""Operator set from which on reductions are told their axes by an input."""


def is_anomalib_export(graph: onnx.GraphProto) -> bool:
    """Say whether a graph takes one image as anomalib does, and gives an anomaly map."""
    inputs = list(inputs_of(graph).values())
    return (
        len(inputs) == 1
        and inputs[0].elem_type == TensorProto.FLOAT
        and len(dimensions(inputs[0])) == 4
        and dimensions(inputs[0])[1] == 3
        and any(output.name == ANOMALY_MAP for output in graph.output)
    )


class Normalisation(NamedTuple):
    """Of the input: channels R, G and B from 0 to 1."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)


def older_export(model: onnx.ModelProto, path: Path) -> Normalisation | None:
    """Name the map of an older export, and give the normalisation that its input needs; None for others.

    Args:
        model: is changed.
        path: its file.

    Raises:
        InputError: the ``metadata.json`` beside it cannot be read, or says something else than numbers.
    """
    inputs = list(inputs_of(model.graph).values())
    beside = path.with_name("metadata.json")
    maps = [output for output in model.graph.output[:1] if len(dimensions(output.type.tensor_type)) in {3, 4}]
    known = {ANOMALY_MAP, SCORE}.intersection(output.name for output in model.graph.output)
    if len(inputs) != 1 or known or not maps or not beside.is_file():
        return None
    found = _normalisation(beside)
    sides = dimensions(maps[0].type.tensor_type)
    named = helper.make_tensor_value_info(ANOMALY_MAP, TensorProto.FLOAT, sides)
    model.graph.node.append(helper.make_node("Identity", [maps[0].name], [ANOMALY_MAP]))
    model.graph.output.append(named)
    return found


def _normalisation(path: Path) -> Normalisation:
    """Read what an export before version 1 says of its transforms, which Albumentations wrote."""
    try:
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON; expected what anomalib wrote beside its export") from error
    if not isinstance(said, dict):
        raise InputError(f"{path}: holds no settings; expected what anomalib wrote beside its export")
    if "transform" not in said:
        return Normalisation()
    try:
        steps = said["transform"]["transform"]["transforms"]
        for step in steps:
            if step["__class_fullname__"].rsplit(".", 1)[-1] == "Normalize":
                scale = 255 / float(step.get("max_pixel_value", 255.0))
                mean = [float(value) / scale for value in step["mean"]]
                deviation = [float(value) / scale for value in step["std"]]
                if not (len(mean) == len(deviation) == 3 and min(deviation) > 0 and _finite(mean, deviation)):
                    raise ValueError
                return Normalisation((mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2]))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(
            f"{path}: transform cannot be read; expected the transforms of Albumentations,"
            " Normalize with mean and std of three numbers"
        ) from error
    return Normalisation()


def _finite(*lists: Iterable[float]) -> bool:
    return all(math.isfinite(value) for values in lists for value in values)


def wrapped(
    model: onnx.ModelProto, path: Path, normalisation: Normalisation | None = None
) -> onnx.ModelProto:
    """Give the model with the inputs and outputs of contract 1.

    Args:
        model: an export of anomalib.
        path: its file, for what is said about mistakes.
        normalisation: of its input; None where the model does that itself.

    Raises:
        InputError: its image size or its map's is not fixed, or its batch size is.
    """
    [(image, image_type)] = inputs_of(model.graph).items()
    [map_sides] = [
        dimensions(output.type.tensor_type) for output in model.graph.output if output.name == ANOMALY_MAP
    ]
    size, map_size = _sizes(path, dimensions(image_type), map_sides)
    trunk = Extractor(compose.add_prefix(model, _PREFIX)).extract_model(
        [_PREFIX + image], [_PREFIX + ANOMALY_MAP]
    )
    graph = trunk.graph
    opset = next(item.version for item in trunk.opset_import if item.domain == "")
    made = _Nodes(opset)
    made.add("Cast", [FRAMES], "pixels", to=TensorProto.FLOAT)
    made.add("Mul", ["pixels", made.constant(np.float32(1 / 255))], "scaled")
    made.add("Gather", ["scaled", made.constant(np.array([2, 1, 0]))], "rgb", axis=3)
    rgb = "rgb"
    if normalisation not in (None, Normalisation()):
        mean, deviation = (np.array(values, dtype=np.float32) for values in normalisation)
        made.add("Sub", [rgb, made.constant(mean)], "centred")
        made.add("Div", ["centred", made.constant(deviation)], "normal")
        rgb = "normal"
    made.add("Transpose", [rgb], _PREFIX + image, perm=[0, 3, 1, 2])
    before = made.take()

    raw = map_output(_MAP)
    if len(map_sides) == 4:
        made.add("Squeeze", [_PREFIX + ANOMALY_MAP, made.constant(np.array([1]))], raw)
    else:
        made.add("Identity", [_PREFIX + ANOMALY_MAP], raw)
    made.add("Gather", [QUANTILES, made.constant(np.array(0))], "row", axis=0)
    made.add("Gather", ["row", made.constant(np.array(0))], "q_a", axis=0)
    made.add("Gather", ["row", made.constant(np.array(1))], "q_b", axis=0)
    made.add("Sub", ["q_b", "q_a"], "spread")
    made.add("Sub", [raw, "q_a"], "above")
    made.add("Mul", ["above", made.constant(np.float32(0.1))], "tenths")
    made.add("Div", ["tenths", "spread"], ANOMALY_MAP)
    made.reduce("ReduceMax", ANOMALY_MAP, SCORE, (1, 2))

    unlimit(graph)
    limit = highest_value(graph, _PREFIX + ANOMALY_MAP)
    nodes = [*before, *graph.node, *made.take()]
    value = helper.make_tensor_value_info
    maps = [value(name, TensorProto.FLOAT, ["N", *map_size]) for name in (ANOMALY_MAP, raw)]
    result = helper.make_model(
        helper.make_graph(
            nodes,
            "anomalib",
            [
                value(FRAMES, TensorProto.UINT8, ["N", *size, 3]),
                value(QUANTILES, TensorProto.FLOAT, [1, 2]),
            ],
            [value(SCORE, TensorProto.FLOAT, ["N"]), *maps],
            [*graph.initializer, *made.weights],
        ),
        functions=list(trunk.functions),
        opset_imports=list(trunk.opset_import),
        ir_version=trunk.ir_version,
        producer_name=model.producer_name,
    )
    kept = {entry.key: entry.value for entry in model.metadata_props}
    said = {CONTRACT: "2", MAPS: _MAP, "channel_order": "BGR", "wrapped": "anomalib"}
    if limit != math.inf:
        said[HIGHEST_VALUE] = f"{limit:.9g}"
    helper.set_model_props(result, kept | said)
    return result


def _sizes(path: Path, image: list[Any], anomaly_map: list[Any]) -> tuple[Size, Size]:
    if isinstance(image[0], int):
        raise InputError(
            f"{path}: is an export of anomalib fixed to a batch of {image[0]}; export it with a free one"
        )
    # With a free size it resizes by itself, and gives its map in the size that its networks see.
    sides = image[2:] if all(isinstance(side, int) for side in image[2:]) else anomaly_map[-2:]
    known = all(isinstance(side, int) and side > 0 for side in (*sides, *anomaly_map[-2:]))
    if len(anomaly_map) not in {3, 4} or not known:
        raise InputError(
            f"{path}: is an export of anomalib without a fixed image size; export it with --input_size"
        )
    return Size(*sides), Size(*anomaly_map[-2:])


class _Nodes:
    """Nodes around the model, as they are added."""

    def __init__(self, opset: int) -> None:
        self.weights: list[onnx.TensorProto] = []
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, inputs: Iterable[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))

    def reduce(self, operator: str, name: str, output: str, axes: tuple[int, ...]) -> None:
        if self._opset >= _AXES_ARE_INPUTS:
            self.add(operator, [name, self.constant(np.array(axes))], output, keepdims=0)
        else:
            self.add(operator, [name], output, axes=list(axes), keepdims=0)

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def take(self) -> list[onnx.NodeProto]:
        nodes, self._nodes = self._nodes, []
        return nodes
