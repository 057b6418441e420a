"""Models of OpenVINO, as anomalib exports them, become engines like its ONNX exports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operators
from test_engine_anomalib import LOCAL_MAP, QUANTILES, SIDE, export, frames

from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_build.openvino_export import read_openvino
from engine_runtime.engine import SCORE
from engine_runtime.open import open_engine


def openvino_export(folder: Path, *, half: bool = False, **how: Any) -> Path:
    """Write what ``to_openvino`` writes: its ONNX export, converted."""
    model = openvino.convert_model(export(folder / "model.onnx", **how))
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=half)
    return folder / "model.xml"


def local_map(path: Path, seen: NDArray[np.uint8]) -> NDArray[np.float32]:
    graph = read_graph(path)
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run([LOCAL_MAP], {"frames": seen, "quantiles": QUANTILES})
    return found[0]


@pytest.mark.parametrize("half", [False, True])
def test_it_gives_what_its_onnx_export_gives(tmp_path: Path, half: bool) -> None:
    path = openvino_export(tmp_path, half=half)
    theirs = local_map(tmp_path / "model.onnx", frames(3))
    np.testing.assert_allclose(local_map(path, frames(3)), theirs, rtol=5e-3 if half else 1e-4, atol=1e-4)


def test_it_is_proven_and_run_as_any_other(tmp_path: Path) -> None:
    path, engine = openvino_export(tmp_path), tmp_path / "part.engine"
    assert build_engine([str(path), "--fast", "--max-batch", "2", "-o", str(engine)]) == 0
    opened = open_engine(engine, threads=1)
    scores = opened.infer([*frames(2)], QUANTILES)[SCORE]
    opened.close()
    expected = 0.1 * (local_map(path, frames(2)).max((1, 2)) - 0.2) / 0.4
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_one_fixed_to_a_single_image_is_freed(tmp_path: Path) -> None:
    graph = read_graph(openvino_export(tmp_path, batch=1))
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    [scores] = session.run(["score"], {"frames": frames(3), "quantiles": QUANTILES})
    assert scores.shape == (3,)


def older(path: Path, metadata: object) -> Path:
    """Let an export look as if anomalib before version 2 had made it: one output without a telling name."""
    model = openvino.Core().read_model(path)
    wanted = model.output("anomaly_map").get_node().input_value(0)
    wanted.set_names({"output"})
    kept = openvino.Model([operators.result(wanted)], model.get_parameters(), "older")
    folder = path.parent / "older"
    folder.mkdir()
    openvino.save_model(kept, folder / "model.xml", compress_to_fp16=False)
    (folder / "metadata.json").write_text(metadata if isinstance(metadata, str) else json.dumps(metadata))
    return folder / "model.xml"


MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESIZE = {"__class_fullname__": "Resize", "height": SIDE, "width": SIDE}
NORMALISE = {"__class_fullname__": "Normalize", "mean": MEAN, "std": DEVIATION, "max_pixel_value": 255.0}


def before_version_1(*steps: object) -> dict[str, object]:
    return {"task": "segmentation", "transform": {"transform": {"transforms": [*steps]}}}


def test_an_export_of_version_1_names_no_map(tmp_path: Path) -> None:
    path = openvino_export(tmp_path)
    theirs = local_map(path, frames(2))
    found = local_map(older(path, {"task": "segmentation", "image_threshold": 0.5}), frames(2))
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_an_export_before_version_1_wants_its_input_normalised(tmp_path: Path) -> None:
    path = older(openvino_export(tmp_path), before_version_1(RESIZE, NORMALISE))
    planes = (frames(2)[..., ::-1].astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(
        DEVIATION, np.float32
    )
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    cut_off = model(planes.transpose(0, 3, 1, 2))[0][:, 0]
    np.testing.assert_allclose(local_map(path, frames(2)).clip(0, 1), cut_off, atol=1e-3)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{", "is not JSON; expected what anomalib wrote beside its export"),
        ([], "holds no settings; expected what anomalib wrote beside its export"),
        ({"transform": 3}, "transform cannot be read; expected the transforms of Albumentations"),
        (before_version_1(NORMALISE | {"std": [0, 1, 1]}), "transform cannot be read"),
        (before_version_1(NORMALISE | {"mean": [1]}), "transform cannot be read"),
    ],
)
def test_metadata_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metadata: object, said: str
) -> None:
    path = older(openvino_export(tmp_path), metadata)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"build-engine: {path.with_name('metadata.json')}: {said}")


def _without_weights(path: Path) -> None:
    path.with_suffix(".bin").unlink()


def _with_fewer_weights(path: Path) -> None:
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-4])


def _with_more_weights(path: Path) -> None:
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes() + bytes(4))


def _as_text(path: Path) -> None:
    path.write_text("no model")


def _as_page(path: Path) -> None:
    path.write_text("<html/>")


def _without_a_layer(path: Path) -> None:
    path.write_text(path.read_text().replace('type="Convolution"', 'type="Convocation"'))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_weights, "model.bin: cannot be read: No such file or directory"),
        (_with_fewer_weights, "expected the two files of one export"),
        (_with_more_weights, "expected the two files of one export"),
        (_as_text, "model.xml: not an OpenVINO model: syntax error"),
        (_as_page, "model.xml: not an OpenVINO model: its first element is <html>, expected <net>"),
        (_without_a_layer, "model.xml: OpenVINO does not read it: "),
    ],
)
def test_damaged_files_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    path = openvino_export(tmp_path)
    spoil(path)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("build-engine: ") and said in line


def model_of(folder: Path, make: Callable[[Any], Any], *shape: int) -> Path:
    image = operators.parameter([-1, *shape], np.float32, name="input")
    image.output(0).set_names({"input"})
    result = operators.result(make(image))
    result.output(0).set_names({"anomaly_map"})
    openvino.save_model(openvino.Model([result], [image]), folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def test_wrong_inputs_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model_of(tmp_path, operators.relu, 4, 8, 8)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{path}: inputs are input float32" in line


def test_an_operator_that_is_not_known_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model_of(tmp_path, lambda image: operators.lrn(image, np.array([1])), 3, 8, 8)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        f"build-engine: {path}: holds the operator LRN, which cannot be translated; give the ONNX export"
    )


KERNEL = np.random.default_rng(0).normal(size=(3, 1, 1, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: operators.group_convolution(x, KERNEL, [1, 1], [1, 1], [1, 1], [1, 1]),
        lambda x: operators.convolution_backprop_data(
            x, KERNEL[:, 0], strides=[2, 2], pads_begin=[1, 1], pads_end=[1, 1]
        ),
        lambda x: operators.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], False, "floor", None),
        lambda x: operators.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3], "floor", None).output(0),
        lambda x: operators.adaptive_avg_pool(x, np.array([1, 1])),
        lambda x: operators.matmul(x, np.ones((3, 5, 8), np.float32), False, True),
        lambda x: operators.strided_slice(
            x,
            np.array([0, 1, 2, 0]),
            np.array([0, 2, 7, 0]),
            np.array([1, 1, 2, 1]),
            [1, 0, 0, 1],
            [1, 0, 0, 1],
        ),
        lambda x: operators.strided_slice(
            x, np.array([0, -1]), np.array([0, 0]), np.array([1, 1]), [1, 0], [1, 0], shrink_axis_mask=[0, 1]
        ),
        lambda x: operators.pad(x, np.array([0, 0, 1, 2]), np.array([0, 0, 2, 1]), "reflect"),
        lambda x: operators.fake_quantize(x, *np.array([0.1, 0.9, 0, 1], np.float32), 16),
        lambda x: operators.topk(x, np.array(2), 1, "min", "value").output(0),
        lambda x: operators.variadic_split(x, np.array(1), np.array([1, 2])).output(1),
        lambda x: operators.split(x, np.array(1), 3).output(2),
        lambda x: operators.gelu(x, "erf"),
        lambda x: operators.squared_difference(x, np.float32(0.5)),
        lambda x: operators.broadcast(x, np.array([2, 3, 8, 8]), broadcast_spec="BIDIRECTIONAL"),
        lambda x: operators.reduce_l2(x, np.array(1), True),
        lambda x: operators.einsum([x, x], "nchw,ncxy->nhwxy"),
        lambda x: operators.gather(x, np.array([2, 0]), np.array(1)),
        lambda x: operators.softmax(operators.swish(x), 1),
        lambda x: operators.interpolate(x, np.array([5, 13]), "linear_onnx", "sizes", axes=np.array([2, 3])),
        lambda x: operators.interpolate(
            x, np.array([2, 1.5], np.float32), "nearest", "scales", axes=np.array([2, 3])
        ),
        lambda x: operators.elu(operators.clamp(x, -1.0, 0.6), 0.7),
    ],
)
def test_operators_give_what_openvino_gives(tmp_path: Path, make: Callable[[Any], Any]) -> None:
    """``read_openvino`` compares by itself, and refuses what differs."""
    graph, _ = read_openvino(model_of(tmp_path, make, 3, 8, 8))
    assert [output.name for output in graph.graph.output] == ["anomaly_map"]
