"""The ONNX graph of contract 1, written node by node from the trained networks.

What does not change after training is folded into weights: the order BGR into the first layers, the
normalisation of the teacher's channels into its last. Mean and deviation are not, nor do teacher and student
share their first layer: on a CPU neither gains anything (docs/benchmarks/first_layers.md). The operators are
the plain ones that ONNX Runtime, OpenVINO and TensorRT all take; the first is a Cast, because TensorRT
computes nothing else on uint8.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from torch import Tensor, nn

from engine_runtime.engine import FRAMES
from foundation.files import replacing
from models.contract_graph import ContractGraph
from models.efficientad.checkpoint import Run
from models.efficientad.model import EfficientAd
from models.efficientad.networks import MEAN, STD, map_size
from pictures.heatmap import MAP_STRIDE
from pictures.map_quantiles import MAP_NORMALISATION
from pictures.trained_on import PIXEL_DIGESTS, TrainedOn, as_metadata


def export(path: Path, run: Run, model: EfficientAd) -> int:
    """Write a model as ONNX.

    Args:
        path: file to write.
        run: the settings the model was trained with; they become metadata.
        model: in evaluation mode.

    Returns:
        The number of nodes.

    Raises:
        InputError: the folder of ``path`` cannot be written.
    """
    graph = Graph()
    channels, cells = model.channels, map_size(model.image_size)

    networks = {"teacher": model.teacher, "student": model.student}
    if model.autoencoder is not None:
        networks["autoencoder"] = model.autoencoder
    outputs = add_networks(graph, networks, model.state_dict())
    if model.autoencoder is None:
        pairs = [(outputs["teacher"], outputs["student"], "local")]
    else:
        halves = ["student_local", "student_global"]
        split = graph.weight("split", np.array([channels, channels], dtype=np.int64))
        graph.nodes.append(
            helper.make_node("Split", [outputs["student"], split], halves, name="split_student", axis=1)
        )
        pairs = [(outputs["teacher"], halves[0], "local"), (outputs["autoencoder"], halves[1], "global")]
    maps = map_names(model)
    planes = [graph.mean_square(*pair) for pair in pairs]
    graph.combine(dict(zip(maps, planes, strict=True)))
    proto = graph.model("efficientad", model.image_size, cells, maps, metadata(run, model))
    with replacing(path) as file:
        file.write(proto.SerializeToString())
    return len(graph.nodes)


def add_networks(
    graph: "Graph", networks: Mapping[str, nn.Sequential], state: Mapping[str, Tensor]
) -> dict[str, str]:
    """Add everything from the frames to the features.

    Args:
        graph: still empty.
        networks: teacher, student and perhaps autoencoder.
        state: their weights under their names, ``teacher_mean`` and ``teacher_std``.

    Returns:
        Network → tensor of its features; the teacher's have mean 0 and deviation 1.
    """
    graph.node("Cast", [FRAMES], "pixels", to=TensorProto.FLOAT)
    scale = 255 * np.array(STD[::-1], dtype=np.float32)
    graph.node(
        "Sub", ["pixels", graph.weight("mean", 255 * np.array(MEAN[::-1], dtype=np.float32))], "centred"
    )
    graph.node("Mul", ["centred", graph.weight("scale", (1 / scale).astype(np.float32))], "scaled")
    graph.node("Transpose", ["scaled"], "image", perm=[0, 3, 1, 2])
    graph.node("Shape", ["image"], "batch", start=0, end=1)

    weights = {name: tensor.detach().clone() for name, tensor in state.items()}
    for name in networks:
        weights[f"{name}.0.weight"] = weights[f"{name}.0.weight"].flip(1)
    last = len(networks["teacher"]) - 1
    mean, std = weights["teacher_mean"].double(), weights["teacher_std"].double()
    weight, bias = (weights[f"teacher.{last}.{kind}"].double() for kind in ("weight", "bias"))
    weights[f"teacher.{last}.weight"] = (weight / std[:, None, None, None]).float()
    weights[f"teacher.{last}.bias"] = ((bias - mean) / std).float()
    return {name: graph.network(name, layers, weights, "image") for name, layers in networks.items()}


def map_names(model: EfficientAd) -> tuple[str, ...]:
    """Name the maps that a model gives, in the order of the quantiles' rows."""
    return ("local",) if model.autoencoder is None else ("local", "global")


def metadata(run: Run, model: EfficientAd) -> dict[str, str]:
    """Say in words what a graph does not: strings, as ONNX wants them."""
    quantiles = io.StringIO()
    maps = map_names(model)
    rows = model.quantiles[: len(maps)].cpu().numpy()
    np.savetxt(quantiles, rows.reshape(1, -1), fmt="%.9g", delimiter=",", newline="")
    entries = {
        "image_size": f"{run.image_size.height}x{run.image_size.width}",
        "channel_order": "BGR",
        MAP_STRIDE: "4",  # of every PDN, which pools twice
        "model_size": run.size,
        "training_digest": run.training_digest,
        "teacher_digest": run.teacher_digest,
        "training_steps": str(run.steps),
        "training_quantiles": quantiles.getvalue(),
        MAP_NORMALISATION: run.map_normalisation,
        "autoencoder": "yes" if run.autoencoder else "no",
        "tool_version": run.tool_version,
    }
    if run.pixel_digests:
        entries[PIXEL_DIGESTS] = run.pixel_digests
    return entries | as_metadata(TrainedOn(run.roi, run.tiles, run.camera_picture))


class Graph(ContractGraph):
    """What the networks of EfficientAD are made of."""

    def mean_square(self, target: str, prediction: str, kind: str) -> str:
        """Add the map of squared differences, averaged over the channels: N×1×h×w."""
        self.node("Sub", [target, prediction], f"{kind}_difference")
        self.node("Mul", [f"{kind}_difference"] * 2, f"{kind}_square")
        return self.node("ReduceMean", [f"{kind}_square"], f"{kind}_mean", axes=[1], keepdims=1)

    def network(self, name: str, layers: nn.Sequential, weights: dict[str, Tensor], value: str) -> str:
        """Add a network layer by layer and give the name of its output.

        Args:
            name: under which its tensors stand in ``weights``.
            layers: of the network, in evaluation mode: dropout does nothing.
            weights: state dict of the model.
            value: the network's input.
        """
        channels = 3
        for index, layer in enumerate(layers):
            output = f"{name}_{index}"
            if isinstance(layer, nn.Conv2d):
                tensors = [
                    self.weight(f"{output}_{kind}", weights[f"{name}.{index}.{kind}"].contiguous().numpy())
                    for kind in ("weight", "bias")
                ]
                value = self.node(
                    "Conv",
                    [value, *tensors],
                    output,
                    kernel_shape=list(layer.kernel_size),
                    strides=list(layer.stride),
                    pads=[int(side) for side in layer.padding] * 2,
                )
                channels = layer.out_channels
            elif isinstance(layer, nn.ReLU):
                value = self.node("Relu", [value], output)
            elif isinstance(layer, nn.AvgPool2d):
                padding = {"pads": [layer.padding] * 4, "count_include_pad": 1} if layer.padding else {}
                pooling = {"kernel_shape": [2, 2], "strides": [2, 2], **padding}
                value = self.node("AveragePool", [value], output, **pooling)
            elif isinstance(layer, nn.Upsample):
                sides = self.weight(f"{output}_sides", np.array([channels, *layer.size], dtype=np.int64))  # type: ignore[misc]
                sizes = self.node("Concat", ["batch", sides], f"{output}_size", axis=0)
                half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
                value = self.node("Resize", [value, "", "", sizes], output, **half)
            elif not isinstance(layer, nn.Dropout):
                raise TypeError(f"no ONNX operator for {layer}")
        return value
