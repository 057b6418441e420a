from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from engine_graphs import little_model, save
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_build.winograd.rewrite import find_blocks, isolated, rewrite
from engine_build.winograd.transforms import KERNELS, tiles, transforms
from engine_runtime.engine import FRAMES, QUANTILES, SCORE
from pictures.frames import Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in

LIMIT = 1e-4
"""Of the largest value, as in an engine's proof."""
EVERY_F = [(tile, kernel) for kernel in KERNELS for tile in tiles(kernel)]
Array = NDArray[Any]


def on_onnxruntime(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def on_openvino(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", exact)
    results = compiled(dict(inputs))
    return {value.name: results[value.name] for value in model.graph.output}


def difference(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def graph(nodes: list[onnx.NodeProto], outputs: list[str], opset: int = 17) -> onnx.ModelProto:
    """Make a model on an input x of 3 channels; weights are drawn for every name that starts with w or b."""
    random = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {
        "w3": (8, 3, 3, 3),
        "w4": (8, 3, 4, 4),
        "w5": (8, 3, 5, 5),
        "w34": (8, 3, 3, 4),
    }
    shapes |= {"grouped": (6, 1, 3, 3), "b": (8,)}
    drawn = [
        numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
        if any(name in node.input for node in nodes)
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 20, 23])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        drawn,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


X = np.random.default_rng(6).normal(0, 1, (2, 3, 20, 23)).astype(np.float32)
SHAPES = {"x": X.shape}


@pytest.mark.parametrize(("tile", "kernel"), EVERY_F)
def test_transforms_filter_exactly(tile: int, kernel: int) -> None:
    random = np.random.default_rng(0)
    window, taps = random.normal(size=tile + kernel - 1), random.normal(size=kernel)
    found = transforms(tile, kernel)
    outputs = found.outputs @ ((found.weights @ taps) * (found.inputs @ window))
    np.testing.assert_allclose(outputs, np.correlate(window, taps, "valid"), rtol=0, atol=1e-11)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[onnx.ModelProto, Array, int]:
    """A convolution with what may follow it, an input, and a tile size."""
    tile, kernel = draw(st.sampled_from(EVERY_F))
    channels, made, batch = draw(st.integers(1, 40)), draw(st.integers(1, 20)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    pads = [draw(st.integers(0, 5)) for _ in range(4)]
    pads[2] += max(0, kernel + 1 - height - pads[0] - pads[2])
    pads[3] += max(0, kernel + 1 - width - pads[1] - pads[3])
    relu, pooled, biased = draw(st.booleans()), draw(st.booleans()) and not tile % 2, draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = (2 / (channels * kernel**2)) ** 0.5
    weights = {"w": random.normal(0, scale, (made, channels, kernel, kernel)), "b": random.normal(0, 1, made)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["conv"], pads=pads)]
    if relu:
        nodes.append(helper.make_node("Relu", ["conv"], ["relu"]))
    if pooled:
        halving = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(helper.make_node("AveragePool", [nodes[-1].output[0]], ["pool"], **halving))
    nodes[-1].output[0] = "y"
    made_graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", made, "h", "w"])],
        [
            numpy_helper.from_array(values.astype(np.float32), name)
            for name, values in weights.items()
            if name in nodes[0].input
        ],
    )
    model = helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = random.normal(0, 1, (batch, channels, height, width)).astype(np.float32)
    return model, x, tile


def check(case: tuple[onnx.ModelProto, Array, int], run: Any) -> None:
    model, x, tile = case
    [block] = find_blocks(model, {"x": x.shape})
    assert block.output == "y"
    rewritten = rewrite(model, [block], {"y": tile})
    assert len(rewritten.graph.node) > len(model.graph.node)
    onnx.checker.check_model(rewritten)
    # The rows of a batch are judged one by one, so that none may depend on another.
    expected = np.concatenate([on_onnxruntime(model, {"x": row[None]})["y"] for row in x])
    # A convolution of few values may cancel to nearly nothing; then the values it is made of are the measure.
    scale = max(float(np.abs(expected).max()), 0.5)
    found = run(rewritten, {"x": x})["y"]
    assert found.shape == expected.shape
    assert float(np.abs(found - expected).max()) <= LIMIT * scale


@settings(max_examples=120, deadline=None)
@given(convolutions())
def test_a_rewritten_convolution_gives_what_the_convolution_gives(case: Any) -> None:
    check(case, on_onnxruntime)


@settings(max_examples=25, deadline=None)
@given(convolutions())
def test_and_so_it_does_on_openvino(case: Any) -> None:
    check(case, on_openvino)


def test_what_reads_the_same_tensor_shares_its_transform() -> None:
    nodes = [helper.make_node("Conv", ["x", weights], [y]) for weights, y in (("w4", "y"), ("w4", "z"))]
    model = graph([*nodes, helper.make_node("Conv", ["x", "w3"], ["other"])], ["y", "z", "other"])
    blocks = find_blocks(model, SHAPES)
    rewritten = rewrite(model, blocks, {"y": 4, "z": 4, "other": 5})
    assert [node.op_type for node in rewritten.graph.node].count("Conv") == 2
    found, expected = on_onnxruntime(rewritten, {"x": X}), on_onnxruntime(model, {"x": X})
    assert all(difference(found[name], expected[name]) < LIMIT for name in expected)


def test_what_others_read_is_kept() -> None:
    halving = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "w3", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("AveragePool", ["relu"], ["pool"], **halving),
        helper.make_node("Neg", ["relu"], ["negative"]),
    ]
    for outputs, ends in (
        (["pool"], "pool"),
        (["pool", "negative"], "relu"),
        (["pool", "relu"], "relu"),
        (["pool", "conv"], "conv"),
    ):
        model = graph(nodes if "negative" in outputs else nodes[:3], outputs)
        [block] = find_blocks(model, SHAPES)
        assert block.output == ends
        found = on_onnxruntime(rewrite(model, [block], {ends: 4}), {"x": X})
        expected = on_onnxruntime(model, {"x": X})
        assert found.keys() == expected.keys() == set(outputs)
        assert all(difference(found[name], expected[name]) < LIMIT for name in expected)


def test_odd_or_padded_pooling_stays_outside() -> None:
    conv = helper.make_node("Conv", ["x", "w3"], ["conv"])
    for attributes in (
        {"kernel_shape": [3, 3], "strides": [2, 2]},
        {"kernel_shape": [2, 2], "strides": [1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ):
        pool = helper.make_node("AveragePool", ["conv"], ["pool"], **attributes)
        model = graph([conv, pool], ["pool"], opset=19)
        [block] = find_blocks(model, SHAPES)
        assert (block.output, block.pooled) == ("conv", False)
        found = on_onnxruntime(rewrite(model, [block], {"conv": 4}), {"x": X})
        assert difference(found["pool"], on_onnxruntime(model, {"x": X})["pool"]) < LIMIT


@pytest.mark.parametrize(
    ("weights", "attributes", "opset"),
    [
        ("w3", {"strides": [2, 2]}, 17),
        ("w3", {"strides": [1, 2]}, 17),
        ("w3", {"dilations": [2, 2]}, 17),
        ("w3", {"auto_pad": "SAME_UPPER"}, 17),
        ("grouped", {"group": 3}, 17),
        ("w5", {}, 17),
        ("w34", {}, 17),
        ("w3", {}, 12),
    ],
)
def test_other_convolutions_are_left_alone(weights: str, attributes: dict[str, Any], opset: int) -> None:
    model = graph([helper.make_node("Conv", ["x", weights], ["y"], **attributes)], ["y"], opset)
    on_onnxruntime(model, {"x": X})
    assert find_blocks(model, SHAPES) == []
    assert find_blocks(graph([helper.make_node("Conv", ["x", "w3"], ["y"])], ["y"]), {}) == []


def test_weights_that_are_computed_are_left_alone() -> None:
    nodes = [helper.make_node("Neg", ["w3"], ["w"]), helper.make_node("Conv", ["x", "w"], ["y"])]
    assert find_blocks(graph(nodes, ["y"]), SHAPES) == []


def test_a_block_alone_is_the_same_block() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Conv", ["positive", "w4", "b"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Neg", ["relu"], ["y"]),
    ]
    model = graph(nodes, ["y"])
    [block] = find_blocks(model, {"positive": X.shape})
    alone = isolated(model, block)
    [again] = find_blocks(alone, {"positive": X.shape})
    assert again == block
    x = np.maximum(X, 0)
    np.testing.assert_array_equal(
        on_onnxruntime(alone, {"positive": x})["relu"], -on_onnxruntime(model, {"x": X})["y"]
    )


def quantiles_of(model: onnx.ModelProto) -> Array:
    """Give quantiles that leave each of the model's maps as it is."""
    (given,) = [given for given in model.graph.input if given.name == QUANTILES]
    return np.tile(np.float32([0, 1]), (given.type.tensor_type.shape.dim[0].dim_value, 1))


def conv_inputs(model: onnx.ModelProto, frames: Array) -> dict[str, tuple[int, ...]]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    names = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = on_onnxruntime(watched, {FRAMES: frames[:1], QUANTILES: quantiles_of(model)})
    return {name: values.shape for name, values in found.items()}


def wholly_rewritten(model: onnx.ModelProto, frames: Array) -> tuple[onnx.ModelProto, int]:
    """Rewrite all that can be, with the largest tiles, whose rounding is the coarsest."""
    blocks = find_blocks(model, conv_inputs(model, frames))
    choice = {block.output: block.tiles[0] for block in blocks}
    return rewrite(model, blocks, choice), len(choice)


def compare(model: onnx.ModelProto, frames: Array, rewrites: int) -> None:
    rewritten, count = wholly_rewritten(model, frames)
    assert count == rewrites
    inputs = {FRAMES: frames, QUANTILES: quantiles_of(model)}
    expected = on_onnxruntime(model, inputs)
    local_map = next(name for name in expected if "local" in name)
    assert np.ptp(expected[local_map]) > 0.1 * np.abs(expected[local_map]).max()
    for run in (on_onnxruntime, on_openvino):
        found = run(rewritten, inputs)
        for name in expected:
            assert difference(found[name], expected[name]) <= LIMIT, name


def test_a_graph_of_contract_1() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    compare(little_model(64, 96), frames, 12)


def exported(path: Path, size: Any, image: Size) -> onnx.ModelProto:
    """An untrained model whose features have the magnitude of a trained one's."""
    import torch

    from models.efficientad.checkpoint import Run
    from models.efficientad.export import export
    from models.efficientad.model import EfficientAd

    torch.manual_seed(11)
    model = EfficientAd(size, image).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    run = Run(size, image, None, 10, 1, 0, "0" * 64, "0" * 64, None, "0.1.0")
    export(path, run, model)
    return onnx.load(path)


@pytest.mark.parametrize(
    ("size", "image", "rewrites"),
    [
        ("xs", Size(256, 256), 15),
        ("xs", Size(131, 202), 15),
        pytest.param("s", Size(128, 160), 16, marks=pytest.mark.slow),
        pytest.param("m", Size(128, 128), 17, marks=pytest.mark.slow),
    ],
)
def test_whole_models_on_real_frames(
    tmp_path: Path, shared_data: Path, size: Any, image: Size, rewrites: int
) -> None:
    paths = images_in(shared_data / "bottle" / "test" / "broken_large")[:2]
    paths += images_in(shared_data / "tile" / "train" / "good")[:1]
    frames = np.stack([fit(read_image(path), image) for path in paths])
    compare(exported(tmp_path / "model.onnx", size, image), frames, rewrites)


def test_a_rewritten_model_is_an_ordinary_file(tmp_path: Path) -> None:
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    model = little_model()
    rewritten, _ = wholly_rewritten(model, frames)
    again = onnx.load(save(rewritten, tmp_path / "rewritten.onnx"))
    onnx.checker.check_model(again, full_check=True)
    assert again.metadata_props == model.metadata_props
    read = {name for node in again.graph.node for name in node.input}
    assert all(weight.name in read for weight in again.graph.initializer)
    assert on_onnxruntime(again, {FRAMES: frames, QUANTILES: quantiles_of(model)})[SCORE].shape == (1,)
