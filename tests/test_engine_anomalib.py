"""Exports of anomalib become engines. Made here in little: same inputs, outputs and post-processing."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.cli import main as calibrate
from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_runtime.engine import ANOMALY_MAP, SCORE, map_output
from engine_runtime.open import open_engine
from pictures.frames import Size
from pictures.heatmap import HIGHEST_VALUE

SIDE = 64
QUANTILES = np.array([[0.2, 0.6]], dtype=np.float32)
LOCAL_MAP = map_output("local")


def export(
    path: Path,
    *,
    opset: int = 18,
    batch: str | int = "batch_size",
    image: tuple[str | int, str | int] = (SIDE, SIDE),
    anomaly_map: tuple[str | int, ...] = (1, SIDE, SIDE),
) -> Path:
    """Write a model whose map is the squared distance of a convolution from its mean, scaled, cut off."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "axes": np.array([1]),
        "all": np.array([1, 2, 3]),
        "threshold": np.float32(0.4),
        "range": np.float32(0.5),
        "middle": np.float32(0.5),
        "least": np.float32(0),
        "most": np.float32(1),
    }

    def reduce(operator: str, name: str, output: str, axes: str, keep: int) -> onnx.NodeProto:
        if opset >= 18:
            return helper.make_node(operator, [name, axes], [output], keepdims=keep)
        return helper.make_node(operator, [name], [output], keepdims=keep, axes=weights[axes].tolist())

    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["features"], pads=[1] * 4),
        helper.make_node("Mul", ["features", "features"], ["squares"]),
        reduce("ReduceMean", "squares", "raw", "axes", 1),
        helper.make_node("Sub", ["raw", "threshold"], ["above"]),
        helper.make_node("Div", ["above", "range"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["centred"]),
        helper.make_node("Clip", ["centred", "least", "most"], ["anomaly_map"]),
        reduce("ReduceMax", "anomaly_map", "pred_score", "all", 0),
        helper.make_node("Greater", ["pred_score", "middle"], ["pred_label"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [value("input", TensorProto.FLOAT, [batch, 3, *image])],
        [
            value("pred_score", TensorProto.FLOAT, [batch]),
            value("pred_label", TensorProto.BOOL, [batch]),
            value("anomaly_map", TensorProto.FLOAT, [batch, *anomaly_map]),
        ],
        [numpy_helper.from_array(np.asarray(weight), name) for name, weight in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def frames(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("image", [(SIDE, SIDE), ("height", "width")])
def test_its_map_is_taken_as_it_was_before_it_was_cut_off(
    tmp_path: Path, opset: int, image: tuple[str | int, str | int]
) -> None:
    path = export(tmp_path / "model.onnx", opset=opset, image=image)
    seen = frames(3)
    planes = (seen[..., ::-1].astype(np.float32) / 255).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [theirs] = session.run(["anomaly_map"], {"input": planes})
    assert theirs.max() == 1  # or nothing would be cut off

    graph = read_graph(path)
    assert graph.input_size == Size(SIDE, SIDE)
    assert graph.maps == {"local": LOCAL_MAP}
    assert graph.metadata["wrapped"] == "anomalib"
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    answers: list[Any] = session.run(list(graph.outputs), {"frames": seen, "quantiles": QUANTILES})
    ours = dict(zip(graph.outputs, answers, strict=True))
    assert ours[LOCAL_MAP].max() > 1.5
    np.testing.assert_allclose(ours[LOCAL_MAP].clip(0, 1), theirs[:, 0], atol=1e-5)
    # Paper §4.4: q_a becomes 0 and q_b becomes 0.1.
    np.testing.assert_allclose(ours[ANOMALY_MAP], 0.1 * (ours[LOCAL_MAP] - 0.2) / 0.4, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours[SCORE], ours[ANOMALY_MAP].max((1, 2)))


def respelled(path: Path, spelling: str) -> Path:
    """Write the cutting off of an export as older exporters do, or in another way."""
    model = onnx.load(path)
    graph, places = model.graph, [node.op_type for node in model.graph.node]
    place = places.index("Clip")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    bounds = [
        helper.make_node("Constant", [], [f"{name}_constant"], value=weights[name])
        for name in ("least", "most")
    ]
    clip = helper.make_node("Clip", ["centred", "least_constant", "most_constant"], ["anomaly_map"])
    cut = {
        "constants": [*bounds, clip],
        "min and max": [
            helper.make_node("Max", ["least", "centred"], ["from_zero"]),
            helper.make_node("Min", ["from_zero", "most"], ["anomaly_map"]),
        ],
        "sigmoid": [helper.make_node("Sigmoid", ["centred"], ["anomaly_map"])],
        "half a clip": [helper.make_node("Clip", ["centred", "", "most"], ["anomaly_map"])],
    }[spelling]
    nodes = [*graph.node[:place], *cut, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("spelling", ["constants", "min and max"])
def test_older_spellings_of_cutting_off_are_taken_away(tmp_path: Path, spelling: str) -> None:
    graph = read_graph(respelled(export(tmp_path / "model.onnx"), spelling))
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    [found] = session.run([LOCAL_MAP], {"frames": frames(3), "quantiles": QUANTILES})
    assert found.max() > 1.5
    assert HIGHEST_VALUE not in graph.metadata


@pytest.mark.parametrize("spelling", ["sigmoid", "half a clip"])
def test_a_limit_that_stays_is_known(tmp_path: Path, spelling: str) -> None:
    graph = read_graph(respelled(export(tmp_path / "model.onnx"), spelling))
    assert float(graph.metadata[HIGHEST_VALUE]) == 1


def test_a_threshold_that_no_part_can_exceed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, good = tmp_path / "part.engine", tmp_path / "good"
    path = respelled(export(tmp_path / "model.onnx"), "half a clip")
    assert build_engine([str(path), "--fast", "-o", str(engine)]) == 0
    good.mkdir()
    for index in range(25):  # bright enough that most maps reach the limit somewhere
        picture = np.random.default_rng(index).integers(100, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        cv2.imwrite(str(good / f"{index}.png"), picture)
    capsys.readouterr()
    assert calibrate([str(engine), "--good", str(good), "-o", str(tmp_path / "part.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("calibrate: ")
    assert not (tmp_path / "part.yaml").exists()


def test_it_is_proven_calibrated_and_run_as_any_other(tmp_path: Path) -> None:
    engine = tmp_path / "part.engine"
    model = export(tmp_path / "model.onnx", anomaly_map=(1, SIDE, SIDE))
    assert build_engine([str(model), "--fast", "--max-batch", "2", "-o", str(engine)]) == 0
    good = tmp_path / "good"
    good.mkdir()
    for number in range(40):
        picture = np.random.default_rng(number).normal(120, 10, (80, 90, 3)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(good / f"{number:02}.png"), picture)
    assert calibrate([str(engine), "--good", str(good), "--false-reject-rate", "0.05"]) == 0
    found = yaml.safe_load((tmp_path / "part.calibration.yaml").read_text())
    assert list(found["quantiles"]) == ["local"]
    opened = open_engine(engine, threads=1)
    quantiles = np.array([found["quantiles"]["local"]], np.float32)
    noisy, plain = frames(1)[0], cv2.resize(cv2.imread(str(good / "00.png")), (SIDE, SIDE))
    scores = opened.infer([noisy, plain.astype(np.uint8)], quantiles)[SCORE]
    assert scores[0] > found["threshold"] > scores[1]
    opened.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 1}, "is an export of anomalib fixed to a batch of 1; export it with a free one"),
        (
            {"image": ("height", "width"), "anomaly_map": (1, "height", "width")},
            "is an export of anomalib without a fixed image size; export it with --input_size",
        ),
        (
            {"anomaly_map": ()},
            "is an export of anomalib without a fixed image size; export it with --input_size",
        ),
    ],
)
def test_what_cannot_be_wrapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    path = export(tmp_path / "model.onnx", **changes)
    assert build_engine([str(path), "--fast"]) == 2
    assert capsys.readouterr().err == f"build-engine: {path}: {said}\n"


def test_a_broken_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node[4].input[0] = "nowhere"
    onnx.save(model, path)
    assert build_engine([str(path), "--fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"build-engine: {path}: not a valid ONNX graph: ")
