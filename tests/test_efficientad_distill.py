from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

from foundation.errors import InputError
from models.backbones.dequantised import dequantised
from models.backbones.onnx_file import OnnxBackbone
from models.backbones.open import open_backbone
from models.commands import efficientad as main
from models.efficientad.crops import Crops, Projection
from models.efficientad.networks import ModelSize
from models.efficientad.teacher import load_teacher
from pictures.image_file import read_image

STRIDES = (2, 2, 2, 2)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 classifier made of the operators of a quantised MobileNetV2."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(np.float32(0.02), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
        numpy_helper.from_array(np.int64([0, -1]), "flat"),
    ]
    nodes = [helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q0"])]
    channels, value = 3, "q0"
    for index, stride in enumerate((*STRIDES, 1)):
        width = 64 if index == 4 else 16 * 2**index
        kernel = random.integers(100, 156, (width, channels, 3, 3), dtype=np.uint8)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        weights.append(
            numpy_helper.from_array(random.integers(-500, 500, width, dtype=np.int32), f"b{index}")
        )
        given = [value, "scale", "zero", f"w{index}", "scale", "zero", "scale", "zero", f"b{index}"]
        layout = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2, "group": 1}
        value, channels = f"q{index + 1}", width
        nodes.append(helper.make_node("QLinearConv", given, [value], **layout))
    scales = ["scale", "zero"]
    added = [value, *scales, value, *scales, *scales]
    nodes.append(helper.make_node("QLinearAdd", added, ["sum"], domain="com.microsoft"))
    pooled = ["sum", *scales, *scales]
    pool = {"domain": "com.microsoft", "channels_last": 0}
    nodes.append(helper.make_node("QLinearGlobalAveragePool", pooled, ["pooled"], **pool))
    nodes.append(helper.make_node("DequantizeLinear", ["pooled", *scales], ["row"]))
    nodes.append(helper.make_node("Reshape", ["row", "flat"], ["features"]))
    nodes.append(helper.make_node("QuantizeLinear", ["features", *scales], ["qrow"]))
    matrix = random.integers(100, 156, (64, 10), dtype=np.uint8)
    weights.append(numpy_helper.from_array(matrix, "matrix"))
    nodes.append(
        helper.make_node("QLinearMatMul", ["qrow", *scales, "matrix", *scales, *scales], ["qclasses"])
    )
    nodes.append(helper.make_node("DequantizeLinear", ["qclasses", *scales], ["classes"]))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    opsets = [helper.make_opsetid("", 12), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path_factory.mktemp("backbone") / "quantised.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def natural(tmp_path: Path) -> Path:
    folder = tmp_path / "natural"
    folder.mkdir()
    random = np.random.default_rng(2)
    for index in range(20):
        noise = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(noise, (70, 60), interpolation=cv2.INTER_CUBIC))
    return folder


def classify(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give the logits of N×H×W×3 images, RGB."""
    planes = ((images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {model.graph.input[0].name: planes.astype(np.float32)})
    found: NDArray[np.float32] = logits
    return found


def test_the_float_graph_follows_the_quantised_one(quantised: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    model = onnx.load(quantised)
    in_float, layers = dequantised(model, quantised)
    assert layers == ["q3", "q4"]
    assert np.corrcoef(classify(model, images)[0], classify(in_float, images)[0])[0, 1] > 0.98


def test_features_grow_with_the_image(quantised: Path) -> None:
    images = np.zeros((2, 96, 160, 3), dtype=np.uint8)
    assert OnnxBackbone(quantised, None, 1)(images).shape == (2, 64 + 128, 12, 20)


def test_the_float_graph_knows_most_of_the_natural_images(shared_data: Path) -> None:
    """Only with the right colour order and normalisation does the classifier name the classes."""
    path = shared_data / "backbone" / "mobilenet_v2_quant.onnx"
    model, _ = dequantised(onnx.load(path), path)
    files = sorted((shared_data / "natural").glob("*.jpg"))  # one per class, in the order of the classes
    squares = []
    for file in files[::20]:
        picture = read_image(file)
        side = min(picture.shape[:2])
        y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = cv2.resize(picture[y : y + side, x : x + side], (224, 224), interpolation=cv2.INTER_AREA)
        squares.append(square[:, :, ::-1])
    named = classify(model, np.stack(squares)).argmax(1)
    assert (named == np.arange(0, len(files), 20)).mean() >= 0.55


@pytest.fixture(scope="module")
def in_float(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small float classifier as torch exports a ResNet: fixed to one image of 64×64, with a head."""
    random = np.random.default_rng(0)
    weights, nodes = [], []
    value, channels = "image", 3
    # Behind the wide end of a stage the next one begins narrow, before it halves the map.
    layers = [(8, 2), (16, 2), (24, 2), (48, 1), (16, 1), (16, 2), (64, 1), (16, 1), (16, 2), (96, 1)]
    for index, (width, stride) in enumerate(layers):
        kernel = random.normal(size=(width, channels, 3, 3)).astype(np.float32) / (3 * channels**0.5)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        layout = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [stride] * 2}
        nodes.append(helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], **layout))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        value, channels = f"r{index}", width
    weights.append(numpy_helper.from_array(np.int64([1, 96 * 2 * 2]), "flat"))
    weights.append(numpy_helper.from_array(np.zeros((96 * 2 * 2, 10), np.float32), "matrix"))
    nodes.append(helper.make_node("Reshape", [value, "flat"], ["row"]))
    nodes.append(helper.make_node("MatMul", ["row", "matrix"], ["classes"]))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 10])],
        weights,
    )
    path = tmp_path_factory.mktemp("backbone") / "classifier.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_of_a_float_graph_the_ends_of_the_stages_are_joined(in_float: Path) -> None:
    """Against the layers' own outputs, averaged over 3×3 and joined by torch's rules."""
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    found = OnnxBackbone(in_float, None, 1)(images)
    assert found.shape == (2, 48 + 64, 12, 20)
    assert torch.equal(found, OnnxBackbone(in_float, ["r3", "r6"], 1)(images))
    alone = OnnxBackbone(in_float, ["r3"], 1)(images)
    torch.testing.assert_close(found[:, :48], alone)
    assert OnnxBackbone(in_float, ["r9", "c0"], 1)(images).shape == (2, 96 + 8, 12, 20)


def test_a_head_of_fixed_size_behind_a_free_input_is_cut_off(in_float: Path, tmp_path: Path) -> None:
    model = onnx.load(in_float)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    path = tmp_path / "free.onnx"
    onnx.save(model, path)
    images = np.random.default_rng(1).integers(0, 256, (1, 96, 160, 3), dtype=np.uint8)
    assert torch.equal(OnnxBackbone(path, None, 1)(images), OnnxBackbone(in_float, None, 1)(images))


def test_features_are_averages_over_neighbours(in_float: Path) -> None:
    model = onnx.load(in_float)
    del model.graph.node[8:], model.graph.output[:]
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    model.graph.output.append(helper.make_tensor_value_info("r3", TensorProto.FLOAT, None))
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    raw = classify(model, images)[0]
    joined = OnnxBackbone(in_float, ["r3"], 1)(images)[0].numpy()
    np.testing.assert_allclose(joined[:, 3, 4], raw[:, 2:5, 3:6].mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined[:, 0, 0], raw[:, :2, :2].mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_a_backbone_of_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], natural: Path
) -> None:
    """Its weights are looked for where torch keeps what it has fetched."""
    try:
        from torchvision.models import resnet18
    except (ImportError, RuntimeError) as error:
        assert distill("torchvision:resnet18", natural, tmp_path / "teacher.safetensors") == 2
        line = capsys.readouterr().err
        assert line.startswith("efficientad: torchvision:resnet18: torchvision does not load beside torch")
        pytest.skip(f"torchvision does not load: {error}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    kept.parent.mkdir(parents=True)
    model = resnet18().eval()
    torch.save(model.state_dict(), kept)
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    found = open_backbone("torchvision:resnet18", None, 1)(images)
    assert found.shape == (2, 128 + 256, 12, 20)
    exported = tmp_path / "resnet18.onnx"
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), exported, dynamo=False)
    torch.testing.assert_close(found, OnnxBackbone(exported, None, 1)(images), rtol=1e-3, atol=1e-3)
    for source, layers in (("torchvision:resnet_18", None), ("torchvision:resnet18", ["layer7"])):
        with pytest.raises(InputError, match=r"^torchvision:resnet") as refused:
            open_backbone(source, layers, 1)
        assert "\n" not in str(refused.value)


def distill(backbone: Path | str, images: Path, out: Path, *options: str, steps: int = 2) -> int:
    given = ["distill", "--backbone", str(backbone), "--images", str(images), "--out", str(out)]
    return main([*given, "--steps", str(steps), "--batch", "2", *options])


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--crops", "15")])
def test_distillation_explains_variance_of_images_it_never_saw(
    quantised: Path,
    natural: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    monkeypatch.setattr("models.efficientad.distill.PROJECTION_CROPS", 16)
    out = tmp_path / "teacher.safetensors"
    explained = []
    for steps in (1, 25):
        assert distill(quantised, natural, out, *options, steps=steps) == 0
        with safe_open(out, "pt") as file:
            explained.append(float(file.metadata()["explained_variance"]))
    assert explained[1] > explained[0] + 0.05
    assert {str(tensor.dtype) for tensor in load_teacher("xs", out).values()} == {"torch.float32"}
    assert out.stat().st_size < 1_000_000


def test_kept_crops_come_in_epochs(quantised: Path, natural: Path) -> None:
    random = np.random.default_rng(0)
    crops = Crops(sorted(natural.iterdir())[:3], OnnxBackbone(quantised, None, 1), random)
    features = crops.of(np.arange(3))[1]
    projection = Projection(features.mean((0, 2, 3)), torch.eye(features.shape[1])[:, :5])
    with crops.kept(np.arange(3), 2, projection, 4) as batches:
        drawn = [next(batches) for _ in range(6)]
    assert {(tuple(images.shape), tuple(target.shape)) for images, target in drawn} == {
        ((2, 256, 256, 3), (2, 5, 64, 64))
    }
    epochs = [
        [image.numpy().tobytes() for batch in drawn[start : start + 2] for image in batch[0]]
        for start in (0, 2, 4)
    ]
    assert len(set(epochs[0])) == 4  # two crops of one picture are not the same
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    seen = {
        image.numpy().tobytes(): target
        for images, targets in drawn
        for image, target in zip(*(images, targets), strict=True)
    }
    for images, targets in drawn:
        for image, target in zip(images, targets, strict=True):
            assert torch.equal(seen[image.numpy().tobytes()], target)  # each with its own features


@pytest.mark.parametrize(("size", "largest"), [("xs", 1_000_000), ("s", 5_400_000)])
def test_packaged_teachers_load_and_say_how_good_they_are(size: ModelSize, largest: int) -> None:
    from models.efficientad.teacher import teacher_file

    path = teacher_file(size, None)
    assert path.stat().st_size < largest
    load_teacher(size, path)
    with safe_open(path, "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
        assert float(file.metadata()["explained_variance"]) > 0.3
    assert path.with_suffix(".md").is_file()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("missing", "cannot be read: No such file"),
        ("garbage", "is not an ONNX file"),
        ("no image", "found inputs [1]; expected one of N×3×H×W"),
        ("mixed", "is a Relu; expected a QLinear graph"),
        ("no strides", "has no features of stride 8; name others with --layers"),
        ("no such layer", "has no tensor N×C×h×w named 'deep', which --layers asks for"),
        ("few channels", "the backbone gives 3 features; expected at least 96"),
    ],
)
def test_wrong_backbones(
    wrong: str, expected: str, quantised: Path, natural: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = natural.with_name("backbone.onnx")
    options: tuple[str, ...] = ()
    if wrong == "garbage":
        path.write_bytes(b"\x00garbage")
    elif wrong == "mixed":
        model = onnx.load(quantised)
        model.graph.node.append(helper.make_node("Relu", ["classes"], ["positive"]))
        onnx.save(model, path)
    elif wrong != "missing":
        value = helper.make_tensor_value_info
        shape = [1] if wrong == "no image" else [1, 3, 64, 64]
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [value("x", TensorProto.FLOAT, shape)],
            [value("y", TensorProto.FLOAT, shape)],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        layer = {"no such layer": "deep", "few channels": "y"}.get(wrong)
        options = () if layer is None else ("--layers", layer)
    out = natural.with_name("teacher.safetensors")
    assert distill(path, natural, out, *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert expected in error
    assert wrong == "few channels" or str(path) in error
    assert not out.exists()


def test_too_few_images_and_a_wrong_name(
    quantised: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(quantised, natural, tmp_path / "teacher.pt") == 2
    assert ".safetensors" in capsys.readouterr().err
    next(natural.iterdir()).unlink()
    assert distill(quantised, natural, tmp_path / "teacher.safetensors") == 2
    assert "holds 19 images; expected at least 20" in capsys.readouterr().err


def test_outputs_of_the_graph_are_layers(in_float: Path, tmp_path: Path) -> None:
    """What a graph gives itself can be learnt from like what lies inside."""
    model = onnx.load(in_float)
    [name, *_] = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    path = tmp_path / "with-maps.onnx"
    onnx.save(model, path)
    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert torch.equal(OnnxBackbone(path, [name], 1)(images), OnnxBackbone(in_float, [name], 1)(images))


def test_more_crops_per_step_than_there_are(
    quantised: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "teacher.safetensors"
    assert distill(quantised, natural, out, "--crops", "4", "--batch", "5") == 2
    assert capsys.readouterr().err.endswith("--batch 5: is more than all --crops 4; expected at most 4\n")
    assert distill(quantised, natural, out, "--batch", "257") == 2
    assert capsys.readouterr().err.endswith("--batch 257: expected at most 256 crops\n")
    assert not out.exists()


def test_a_damaged_photograph_is_found_before_the_work(
    quantised: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, damaged = tmp_path / "teacher.safetensors", natural / "19.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    assert distill(quantised, natural, out) == 2
    assert str(damaged) in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_photographs_stay_on_the_disk(quantised: Path, natural: Path) -> None:
    files = sorted(natural.iterdir())
    crops = Crops(files, OnnxBackbone(quantised, None, 1), np.random.default_rng(0))
    assert len(crops.of(np.array([4]))[0]) == 1
    files[4].unlink()  # a picture is read when a crop of it is drawn, not before
    with pytest.raises(InputError, match=files[4].name):
        crops.of(np.array([4]))
