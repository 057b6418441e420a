from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open

from efficientad.backbone import Backbone
from efficientad.cli import main
from efficientad.crops import Crops, Projection
from efficientad.teacher import load_teacher
from engine_runtime.frames import read_image

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


def test_float_backbone_follows_the_quantised_one(quantised: Path) -> None:
    import onnxruntime

    images = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    planes = ((images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(quantised, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": planes.astype(np.float32)})
    features, logits = Backbone(quantised, 1)(images)
    assert features.shape == (1, 64 + 128, 8, 8)
    assert np.corrcoef(expected[0], logits[0])[0, 1] > 0.98


def test_features_grow_with_the_image(quantised: Path) -> None:
    images = np.zeros((2, 96, 160, 3), dtype=np.uint8)
    assert Backbone(quantised, 1)(images)[0].shape == (2, 192, 12, 20)


def test_backbone_knows_most_of_the_natural_images(shared_data: Path) -> None:
    """Only with the right colour order and normalisation does the classifier name the classes."""
    backbone = Backbone(shared_data / "backbone" / "mobilenet_v2_quant.onnx", 2)
    files = sorted((shared_data / "natural").glob("*.jpg"))  # one per class, in the order of the classes
    right = 0
    for label in range(0, len(files), 20):
        picture = read_image(files[label])
        side = min(picture.shape[:2])
        y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = cv2.resize(picture[y : y + side, x : x + side], (224, 224), interpolation=cv2.INTER_AREA)
        _, logits = backbone(np.ascontiguousarray(square[None, :, :, ::-1]))
        right += int(logits[0].argmax()) == label
    assert right >= 0.55 * len(range(0, len(files), 20))


@pytest.fixture
def natural(tmp_path: Path) -> Path:
    folder = tmp_path / "natural"
    folder.mkdir()
    random = np.random.default_rng(2)
    for index in range(20):
        noise = random.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(noise, (70, 60), interpolation=cv2.INTER_CUBIC))
    return folder


def distill(backbone: Path, images: Path, out: Path, *options: str, steps: int = 2) -> int:
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
    monkeypatch.setattr("efficientad.distill.PROJECTION_CROPS", 16)
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
    pictures = [read_image(path) for path in sorted(natural.iterdir())[:3]]
    crops = Crops(pictures, Backbone(quantised, 1), random)
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


def test_packaged_teacher_loads_and_says_how_good_it_is() -> None:
    from efficientad.teacher import teacher_file

    path = teacher_file("xs", None)
    assert path.stat().st_size < 1_000_000
    load_teacher("xs", path)
    with safe_open(path, "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
        assert float(file.metadata()["explained_variance"]) > 0.3
    assert path.with_suffix(".md").is_file()


@pytest.mark.parametrize("wrong", ["missing", "garbage", "float graph"])
def test_wrong_backbones(
    wrong: str, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backbone.onnx"
    if wrong == "garbage":
        path.write_bytes(b"\x00garbage")
    elif wrong == "float graph":
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [value("x", TensorProto.FLOAT, [1])],
            [value("y", TensorProto.FLOAT, [1])],
        )
        onnx.save(helper.make_model(graph), path)
    out = tmp_path / "teacher.safetensors"
    assert distill(path, natural, out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert not out.exists()


def test_too_few_images_and_a_wrong_name(
    quantised: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(quantised, natural, tmp_path / "teacher.pt") == 2
    assert ".safetensors" in capsys.readouterr().err
    next(natural.iterdir()).unlink()
    assert distill(quantised, natural, tmp_path / "teacher.safetensors") == 2
    assert "holds 19 images; expected at least 20" in capsys.readouterr().err
