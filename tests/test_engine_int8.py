"""Engines in INT8: on ranges of good images, measured beside FP32."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine_build.cli import main
from engine_build.graph import read_graph
from engine_build.quantise import good_frames, quantised
from engine_runtime.engine import SCORE, uncalibrated
from engine_runtime.engine_file import read_engine, read_manifest
from engine_runtime.open import open_engine
from engine_runtime.tensorrt_library import is_installed
from models.commands import efficientad
from pictures.frames import Frame, Roi, Size

SIZE = Size(128, 144)
ROI = Roi(4, 2, 150, 140)


def part(seed: int, *, defective: bool = False) -> Frame:
    """Draw a disc on a grey belt, a little different each time."""
    random = np.random.default_rng(seed)
    picture = random.normal(90, 4, (150, 160, 3)).clip(0, 255).astype(np.uint8)
    centre = (80 + int(random.integers(-3, 4)), 75 + int(random.integers(-3, 4)))
    cv2.circle(picture, centre, 45, (150, 160, 170), -1)
    if defective:
        cv2.circle(picture, (60, 60), 9, (20, 30, 240), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1).astype(np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for seed in range(12):
        cv2.imwrite(str(folder / f"{seed:02}.png"), part(seed))
    return folder


@pytest.fixture(scope="module")
def model(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model: of drawn weights, student and teacher differ so much that only rounding is left."""
    folder = tmp_path_factory.mktemp("model")
    trained, path = str(folder / "part.pt"), folder / "part.onnx"
    options = ["--steps", "150", "--image-size", "128x144", "--roi", "4,2,150,140"]
    assert efficientad(["train", "--data", str(good), "--out", trained, *options]) == 0
    assert efficientad(["export", trained, "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_convolutions_become_int8_and_scores_hardly_change(
    model: Path, good: Path, tmp_path: Path, runtime: str
) -> None:
    options = ("--runtime", runtime, "--threads", "1", "--max-batch", "2", "--time-limit", "2")
    exact, rounded = tmp_path / "fp32.engine", tmp_path / "int8.engine"
    assert main([str(model), "-o", str(exact), "--fast", *options[:-2]]) == 0
    assert main([str(model), "-o", str(rounded), "--precision", "int8", "--good", str(good), *options]) == 0
    manifest, payload = read_engine(rounded)
    assert (manifest.precision, manifest.runtime, manifest.winograd) == ("int8", runtime, {})
    assert manifest.proof.parity_frames == 6
    assert 0 < manifest.proof.largest_score_difference < 0.5
    assert len(payload) < 0.65 * exact.stat().st_size  # the densities stay as they are
    assert [(row.precision, row.chosen) for row in manifest.measured] == [("int8", True), ("fp32", False)]

    graph = onnx.load_model_from_string(payload).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = [node for node in convolutions if not node.input[1].endswith("DequantizeLinear_Output")]
    assert len(kept) == 8, "two each of teacher and student, three of the autoencoder; and what is exact"

    frames = [part(100 + index, defective=index > 3)[2:142, 4:154] for index in range(8)]
    scores = []
    quantiles = uncalibrated(tuple(manifest.maps.values()))
    for path in (exact, rounded):
        engine = open_engine(path, threads=1)
        resized = [cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
        scores.append([float(engine.infer([frame], quantiles)[SCORE][0]) for frame in resized])  # type: ignore[list-item]
        engine.close()
    np.testing.assert_allclose(scores[1][:4], scores[0][:4], atol=0.1)
    # What lies outside the ranges of good parts is cut off there, and stays far above them.
    assert min(scores[1][4:]) > 1.5 * max(scores[1][:4])


def test_tensorrt_builds_it_without_zero_points(model: Path, good: Path, tmp_path: Path) -> None:
    if not is_installed():
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    path = tmp_path / "int8.engine"
    options = ["--runtime", "tensorrt", "--precision", "int8", "--good", str(good), "--max-batch", "4"]
    assert main([str(model), "-o", str(path), *options]) == 0
    manifest = read_manifest(path)
    assert (manifest.precision, manifest.runtime) == ("int8", "tensorrt")
    assert manifest.proof.graph_score_difference is not None
    assert 0 < manifest.proof.graph_score_difference < 0.5

    graph = read_graph(model)
    content = quantised(graph, good_frames(good, graph)[0], lambda: None, symmetric=True)
    weights = {item.name: item for item in onnx.load_model_from_string(content).graph.initializer}
    zeros = [numpy_helper.to_array(item) for name, item in weights.items() if name.endswith("zero_point")]
    assert zeros
    assert not any(zero.any() for zero in zeros)


def test_fast_measures_nothing(model: Path, good: Path, tmp_path: Path) -> None:
    target = tmp_path / "part.engine"
    options = ("--precision", "int8", "--good", str(good), "--fast", "--max-batch", "1")
    assert main([str(model), "-o", str(target), *options]) == 0
    manifest = read_manifest(target)
    assert (manifest.precision, manifest.runtime, manifest.measured) == ("int8", "openvino", ())


def test_ranges_of_a_tiled_model_come_from_tiles(model: Path, good: Path, tmp_path: Path) -> None:
    tiled = onnx.load(model)
    tiled.metadata_props.add(key="tiles", value="64,8")
    onnx.save(tiled, tmp_path / "tiled.onnx")
    half, other = good_frames(good, read_graph(tmp_path / "tiled.onnx"))
    picture = cv2.imread(str(good / "00.png"))[2:142, 4:154]
    corners = [(top, left) for top in (0, 56, 76) for left in (0, 56, 86)]
    tiles = [picture[top : top + 64, left : left + 64] for top, left in corners]
    resized = [cv2.resize(tile, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for tile in tiles]
    assert any((half[0] == tile).all() for tile in resized)
    assert len(half) == len(other) == 6
    assert len({frame.tobytes() for frame in half}) == 6


def test_what_int8_needs(model: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, small = tmp_path / "few", tmp_path / "small"
    for folder, size in ((few, (160, 150)), (small, (60, 50))):
        folder.mkdir()
        for index in range(7 if folder is few else 8):
            cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(part(index), size))
    for options, expected in (
        ((), "--precision int8: needs images of good parts to measure ranges on: --good DIR"),
        (("--good", str(few)), f"--good {few}: holds 7 images; expected at least 8"),
        (("--good", str(small)), f"{small}/0.png: roi 150×140+4+2 does not lie inside the picture of 60×50"),
        (("--good", str(tmp_path / "none")), f"{tmp_path}/none: not a folder"),
    ):
        target = tmp_path / "part.engine"
        assert main([str(model), "-o", str(target), "--precision", "int8", *options]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"build-engine: {expected}")
        assert not target.exists()


def test_good_images_without_int8_are_refused(
    model: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), "--good", str(good), "--fast"]) == 2
    assert capsys.readouterr().err == (
        "build-engine: --good: is for --precision int8, and for bf16 of models with nodes that stay FP32\n"
    )
