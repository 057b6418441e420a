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
from typing import cast

import numpy as np
from onnx import TensorProto, helper
from torch import Tensor, nn

from engine_runtime.engine import FRAMES
from engine_runtime.manifest import FP32_NODES
from foundation.files import write_whole
from models.backbones.trunk import IMAGE, JOINED, Trunk
from models.contract_graph import ContractGraph
from models.efficientad.checkpoint import Run
from models.efficientad.model import EfficientAd
from models.efficientad.networks import MEAN, STD, STRIDE
from models.efficientad.picture import LEAST_TOP, Picture
from models.efficientad.positions import BELOW_USUAL, LEAST, LEAST_DISTANCE, USUAL, Density, UsualMap
from models.method import TRAINING_MASK
from pictures.heatmap import MAP_STRIDE
from pictures.locating.reference import parse_reference
from pictures.map_quantiles import MAP_NORMALISATION, MAP_WEIGHTS
from pictures.trained_on import PIXEL_DIGESTS, TrainedOn, as_metadata

POOLED = "teacher_pooled"
"""The teacher's features, averaged. From here on distances are squared: rounding must not come in."""


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
    channels = model.channels
    learned = {"student": model.student}
    if model.autoencoder is not None:
        learned["autoencoder"] = model.autoencoder
    if model.trunk is None:
        teacher = cast(nn.Sequential, model.teacher)
        outputs = add_networks(graph, {"teacher": teacher, **learned}, model.state_dict())
    else:
        outputs = add_backbone(graph, model.trunk, learned, model.state_dict())
    if model.autoencoder is None:
        pairs = [(outputs["teacher"], outputs["student"], "local")]
    else:
        halves = ["student_local", "student_global"]
        split = graph.weight("split", np.array([channels, channels], dtype=np.int64))
        graph.nodes.append(
            helper.make_node("Split", [outputs["student"], split], halves, name="split_student", axis=1)
        )
        pairs = [(outputs["teacher"], halves[0], "local"), (outputs["autoencoder"], halves[1], "global")]
    differences = [graph.mean_square(*pair) for pair in pairs]
    planes = list(differences)
    for place, usual in enumerate((model.usual_local, model.usual_global)):
        if usual is not None:
            planes[place] = graph.z_score(planes[place], pairs[place][2], usual)
    about = metadata(run, model)
    shape = differences[0]
    if model.trunk is None and (model.density is not None or model.picture is not None):
        pool = [model.detail.pool] * 2
        graph.node("AveragePool", [outputs["teacher"]], POOLED, kernel_shape=pool, strides=pool)
    if POOLED in (node.name for node in graph.nodes):
        about[FP32_NODES] = POOLED
    if model.density is not None:
        shape = graph.density(POOLED, model.density)
        planes.append(shape)
    if model.picture is not None:
        planes.append(graph.whole(POOLED, shape, model.picture))
    graph.combine(dict(zip(model.map_names, planes, strict=True)))
    proto = graph.model("efficientad", model.image_size, model.cells, model.map_names, about)
    write_whole(path, proto.SerializeToString())
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


def add_backbone(
    graph: "Graph", trunk: Trunk, learned: Mapping[str, nn.Sequential], state: Mapping[str, Tensor]
) -> dict[str, str]:
    """Add everything from the frames to the features where a backbone is the teacher.

    Args:
        graph: still empty.
        trunk: of the backbone.
        learned: student and perhaps autoencoder.
        state: their weights under their names, ``teacher_mean`` and ``teacher_std``.

    Returns:
        Network → tensor of its features; the teacher's have mean 0 and deviation 1, and are ``POOLED``.
    """
    begun = trunk.begun()
    graph.nodes += begun.nodes
    graph.weights += begun.weights
    graph.node("Shape", [IMAGE], "batch", start=0, end=1)
    mean, std = (np.array(values[::-1], dtype=np.float32)[:, None, None] for values in (MEAN, STD))
    graph.node("Sub", [IMAGE, graph.weight("mean", 255 * mean)], "centred")
    graph.node("Mul", ["centred", graph.weight("scale", 1 / (255 * std))], "scaled")
    usual, spread = (state[f"teacher_{name}"][:, None, None].cpu().numpy() for name in ("mean", "std"))
    graph.node("Sub", [JOINED, graph.weight(f"{POOLED}/mean", usual)], f"{POOLED}/centred")
    graph.node("Mul", [f"{POOLED}/centred", graph.weight(f"{POOLED}/scale", 1 / spread)], POOLED)
    weights = {name: tensor.detach().clone() for name, tensor in state.items()}
    outputs = {"teacher": POOLED}
    for name, layers in learned.items():
        weights[f"{name}.0.weight"] = weights[f"{name}.0.weight"].flip(1)
        outputs[name] = graph.network(name, layers, weights, "scaled")
    return outputs


def metadata(run: Run, model: EfficientAd) -> dict[str, str]:
    """Say in words what a graph does not: strings, as ONNX wants them."""
    quantiles = io.StringIO()
    np.savetxt(quantiles, model.quantiles.cpu().numpy().reshape(1, -1), fmt="%.9g", delimiter=",", newline="")
    entries = {
        "image_size": f"{run.image_size.height}x{run.image_size.width}",
        "channel_order": "BGR",
        "model_size": run.size,
        "training_digest": run.training_digest,
        "teacher_digest": run.teacher_digest,
        "training_steps": str(run.steps),
        "training_quantiles": quantiles.getvalue(),
        MAP_NORMALISATION: run.map_normalisation,
        "autoencoder": "yes" if run.autoencoder else "no",
        "position_aware": "yes" if run.position_aware else "no",
        "density": "yes" if run.density else "no",
        "whole": "yes" if run.whole else "no",
        "tool_version": run.tool_version,
    }
    if model.trunk is None:
        entries[MAP_STRIDE] = str(STRIDE)
    else:
        entries |= {"backbone": model.trunk.name, "backbone_licence": model.trunk.licence}
        entries[MAP_WEIGHTS] = ",".join(f"{weight:.6g}" for weight in model.weights.tolist())
    if run.mask is not None:
        entries[TRAINING_MASK] = run.mask
    if run.pixel_digests:
        entries[PIXEL_DIGESTS] = run.pixel_digests
    reference = None if run.reference is None else parse_reference(run.reference)
    return entries | as_metadata(TrainedOn(run.roi, run.tiles, run.camera_picture, reference))


class Graph(ContractGraph):
    """What the networks of EfficientAD are made of."""

    def mean_square(self, target: str, prediction: str, kind: str) -> str:
        """Add the map of squared differences, averaged over the channels: N×1×h×w."""
        self.node("Sub", [target, prediction], f"{kind}_difference")
        self.node("Mul", [f"{kind}_difference"] * 2, f"{kind}_square")
        return self.node("ReduceMean", [f"{kind}_square"], f"{kind}_mean", axes=[1], keepdims=1)

    def z_score(self, plane: str, kind: str, usual: UsualMap) -> str:
        """Add what ``UsualMap`` makes of a map, N×1×h×w."""
        least = self.weight(f"{kind}_least", np.array(LEAST, dtype=np.float32))
        highest = self.weight(f"{kind}_usual", (usual.mean + USUAL * usual.deviation).numpy())
        scale = self.weight(f"{kind}_usual_scale", usual.deviation.reciprocal().numpy())
        self.node("Add", [plane, least], f"{kind}_positive")
        self.node("Log", [f"{kind}_positive"], f"{kind}_logarithm")
        self.node("Sub", [f"{kind}_logarithm", highest], f"{kind}_above_usual")
        self.node("Mul", [f"{kind}_above_usual", scale], f"{kind}_z_score")
        return self.node("LeakyRelu", [f"{kind}_z_score"], f"{kind}_unusual", alpha=BELOW_USUAL)

    def density(self, features: str, density: Density) -> str:
        """Add the map of ``Density``, N×1×h×w; squares of rounded features would be wrong in INT8.

        Args:
            features: of the teacher, normalised and pooled.
            density: fitted.
        """

        def shape(name: str, *sides: int) -> str:
            return self.weight(f"density/{name}", np.array(sides, dtype=np.int64))

        components, (height, width) = len(density.basis), density.grid
        basis = self.weight("density/basis", density.basis[:, :, None, None].contiguous().numpy())
        self.node("Conv", [features, basis], "density/projected", kernel_shape=[1, 1])
        # In this order: runtimes keep the channels last, and transpose large planes slowly.
        self.node("Transpose", ["density/projected"], "density/cells", perm=[2, 3, 0, 1])
        self.node("Reshape", ["density/cells", shape("flat", height * width, -1, components)], "density/rows")
        mean = self.weight("density/mean", density.mean[:, None].numpy())
        self.node("Sub", ["density/rows", mean], "density/apart")
        self.triangular_product("density/apart", density.whitening.numpy(), "density/independent")
        plane = shape("plane", -1, 1, height, width)

        def averaged(squares: str, name: str) -> str:
            self.node("ReduceMean", [squares], f"density/{name}_mean_square", axes=[2], keepdims=0)
            self.node("Transpose", [f"density/{name}_mean_square"], f"density/{name}_by_image", perm=[1, 0])
            return self.node("Reshape", [f"density/{name}_by_image", plane], f"density/{name}_squares")

        self.node("Mul", ["density/independent"] * 2, "density/squares")
        squares, neighbours = averaged("density/squares", "all"), density.detail.neighbours
        if neighbours > 1:
            squares = self.node(
                "AveragePool",
                [squares],
                "density/around",
                kernel_shape=[neighbours] * 2,
                strides=[1, 1],
                pads=[neighbours // 2] * 4,
                count_include_pad=0,
            )
        distances = self.node("Sqrt", [squares], "density/distances")
        if density.fine:
            ends = [shape("first", 0), shape("fine", density.fine), shape("component_axis", 2)]
            self.node("Slice", ["density/squares", *ends], "density/squares_of_fine")
            fine = averaged("density/squares_of_fine", "fine")
            distances = self._sharpened(distances, self.node("Sqrt", [fine], "density/fine_distances"))
        if density.grid == density.cells:
            return distances
        return self.resize(distances, (1, *density.cells), "density/spread")

    def _sharpened(self, distances: str, fine: str) -> str:
        """Give distances the shape of their mean with those in the fine layers, and keep the largest."""
        least = self.weight("density/least", np.array(LEAST_DISTANCE, dtype=np.float32))
        self.node("Mul", [fine, distances], "density/fine_and_all")
        self.node("Sqrt", ["density/fine_and_all"], "density/half_fine")
        self.node("Mul", ["density/half_fine", distances], "density/fine_and_thrice_all")
        self.node("Sqrt", ["density/fine_and_thrice_all"], "density/shape")
        self.node("ReduceMax", ["density/shape"], "density/top", axes=[2, 3], keepdims=1)
        self.node("Max", ["density/top", least], "density/positive_top")
        self.node("Div", ["density/shape", "density/positive_top"], "density/share")
        self.node("ReduceMax", [distances], "density/largest", axes=[2, 3], keepdims=1)
        return self.node("Mul", ["density/share", "density/largest"], "density/sharpened")

    def whole(self, features: str, shape: str, picture: Picture) -> str:
        """Add the map of ``Picture``, N×1×h×w.

        Args:
            features: of the teacher, normalised and pooled.
            shape: of the map, N×1×h×w.
            picture: fitted.
        """
        least = self.weight("whole/least", np.array(LEAST_TOP, dtype=np.float32))
        row = self.weight("whole/row", np.array([0, len(picture.mean)], dtype=np.int64))
        cell = self.weight("whole/cell", np.array([-1, 1, 1, 1], dtype=np.int64))
        mean = self.weight("whole/usual", picture.mean.numpy())
        whitening = self.weight("whole/whitening", picture.whitening.numpy())
        self.node("ReduceMean", [features], "whole/means", axes=[2, 3], keepdims=1)
        self.node("Sub", [features, "whole/means"], "whole/apart")
        self.node("Mul", ["whole/apart"] * 2, "whole/squares")
        self.node("ReduceMean", ["whole/squares"], "whole/variances", axes=[2, 3], keepdims=1)
        self.node("Sqrt", ["whole/variances"], "whole/deviations")
        self.node("Concat", ["whole/means", "whole/deviations"], "whole/both", axis=1)
        self.node("Reshape", ["whole/both", row], "whole/summary")
        self.node("Sub", ["whole/summary", mean], "whole/unusual")
        self.node("MatMul", ["whole/unusual", whitening], "whole/independent")
        self.node("Mul", ["whole/independent"] * 2, "whole/independent_squares")
        self.node("ReduceMean", ["whole/independent_squares"], "whole/mean_square", axes=[1], keepdims=1)
        self.node("Sqrt", ["whole/mean_square"], "whole/root")
        self.node("Reshape", ["whole/root", cell], "whole/distance")
        self.node("ReduceMax", [shape], "whole/top", axes=[2, 3], keepdims=1)
        self.node("Max", ["whole/top", least], "whole/positive_top")
        share = self.node("Div", [shape, "whole/positive_top"], "whole/share")
        located = share
        for power in range(1, picture.focus):
            located = self.node("Mul", [located, share], f"whole/share_{power + 1}")
        return self.node("Mul", [located, "whole/distance"], "whole/map")

    def resize(self, value: str, sides: tuple[int, ...], output: str) -> str:
        """Interpolate to C, h, w linearly."""
        rest = self.weight(f"{output}_sides", np.array(sides, dtype=np.int64))
        sizes = self.node("Concat", ["batch", rest], f"{output}_size", axis=0)
        half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", [value, "", "", sizes], output, **half)

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
                value = self.resize(value, (channels, *layer.size), output)  # type: ignore[misc]
            elif not isinstance(layer, nn.Dropout):
                raise TypeError(f"no ONNX operator for {layer}")
        return value
