import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from engine_graphs import OUTPUTS, little_model, save

from engine_build.cli import main as build_engine
from engine_runtime.engine import SCORE, Engine
from engine_runtime.engine_file import read_engine, write_engine
from engine_runtime.open import open_engine
from foundation.errors import EngineFailed, EngineRefused
from pictures.frames import Frame, Size, fit

RUNTIMES = ("openvino", "onnxruntime")
QUANTILES = np.array([[1.0, 3.0], [0.5, 2.0]], dtype=np.float32)
FRAMES: list[Frame] = list(np.random.default_rng(3).integers(0, 256, (6, 64, 96, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    model = save(little_model(64, 96), folder / "little.onnx")
    for runtime in RUNTIMES:
        options = [
            "--runtime",
            runtime,
            "--fast",
            "--max-batch",
            "6",
            "-o",
            str(folder / f"{runtime}.engine"),
        ]
        assert build_engine([str(model), *options]) == 0
    return folder


@pytest.fixture(params=RUNTIMES)
def engine(folder: Path, request: pytest.FixtureRequest) -> Engine:
    return open_engine(folder / f"{request.param}.engine", threads=1)


def test_outputs_are_those_of_the_graph(engine: Engine, folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "little.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(list(OUTPUTS), {"frames": np.stack(FRAMES), "quantiles": QUANTILES})
    found = engine.infer(FRAMES, QUANTILES, OUTPUTS)
    assert tuple(found) == OUTPUTS
    for name, values in zip(OUTPUTS, expected, strict=True):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("height, width", [(64, 96), (128, 192), (200, 96), (40, 50)])
def test_a_picture_is_resized_right_into_its_slot(height: int, width: int) -> None:
    picture: Frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    slots = np.zeros((3, 64, 96, 3), np.uint8)
    assert fit(picture, Size(64, 96), out=slots[1]).base is slots
    np.testing.assert_array_equal(slots[1], fit(picture, Size(64, 96)))
    assert not slots[0].any() and not slots[2].any()


def test_batches_of_every_size_in_any_order(engine: Engine) -> None:
    alone = [engine.infer([frame], QUANTILES)[SCORE].item() for frame in FRAMES]
    for size in (6, 1, 3, 5, 2, 4):
        np.testing.assert_allclose(engine.infer(FRAMES[:size], QUANTILES)[SCORE], alone[:size], rtol=1e-5)


def test_the_score_is_the_largest_value_of_the_map(engine: Engine) -> None:
    found = engine.infer(FRAMES, QUANTILES)
    np.testing.assert_array_equal(found["score"], found["anomaly_map"].max(axis=(1, 2)))
    assert found["anomaly_map"].shape == (6, *engine.manifest.map_size)


def test_results_outlive_the_next_batch(engine: Engine) -> None:
    first = engine.infer(FRAMES[:2], QUANTILES, OUTPUTS)
    kept = {name: values.copy() for name, values in first.items()}
    engine.infer(FRAMES[2:4], QUANTILES, OUTPUTS)
    for name, values in first.items():
        np.testing.assert_array_equal(values, kept[name])


def test_frames_may_lie_anywhere_and_are_not_kept(engine: Engine) -> None:
    slots = np.zeros((2, 64, 2 * 96, 3), dtype=np.uint8)
    slots[:, :, ::2] = FRAMES[:2]
    scattered = [slots[1, :, ::2], slots[0, :, ::2]]
    expected = engine.infer([FRAMES[1], FRAMES[0]], QUANTILES)[SCORE]
    np.testing.assert_array_equal(engine.infer(scattered, QUANTILES)[SCORE], expected)
    alone = engine.infer(scattered[:1], QUANTILES)[SCORE]
    np.testing.assert_allclose(alone, expected[:1], rtol=1e-5)
    slots[:] = 0
    np.testing.assert_array_equal(engine.infer([FRAMES[1], FRAMES[0]], QUANTILES)[SCORE], expected)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "a batch of 0 frames; expected 1 to 6"),
        (FRAMES + FRAMES[:1], "a batch of 7 frames"),
        ([FRAMES[0][:32]], r"uint8 \(32, 96, 3\); the engine takes uint8 \(64, 96, 3\)"),
        ([FRAMES[0].astype(np.float32)], "float32"),
    ],
)
def test_a_wrong_batch_is_the_callers_mistake(engine: Engine, frames: list[Frame], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.infer(frames, QUANTILES)


def test_what_the_runtime_raises_becomes_engine_failed(engine: Engine) -> None:
    with pytest.raises(EngineFailed):
        engine.infer(FRAMES[:1], QUANTILES, ("no such output",))
    assert np.isfinite(engine.infer(FRAMES[:1], QUANTILES)[SCORE]).all()


def test_convolutions_run_in_full_precision(engine: Engine) -> None:
    assert engine.half_precision_share() == 0


@pytest.mark.parametrize(
    "changes", [{"input_size": Size(64, 64)}, {"map_size": Size(3, 3)}, {"precision": "fp16"}]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_manifest_that_does_not_fit_its_payload(
    folder: Path, tmp_path: Path, runtime: str, changes: dict[str, object]
) -> None:
    manifest, payload = read_engine(folder / f"{runtime}.engine")
    path = tmp_path / "wrong.engine"
    write_engine(path, manifest.model_copy(update=changes), payload)
    with pytest.raises(EngineRefused, match=r"wrong\.engine: ") as raised:
        open_engine(path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_runtime_that_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "engine_runtime.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineRefused, match=r"openvino\.engine: runtime openvino is not installed here"):
        open_engine(folder / "openvino.engine")
    monkeypatch.undo()
    importlib.import_module("engine_runtime.openvino")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_runtime_leaves_no_trace_in_the_users_home(tmp_path: Path, runtime: str) -> None:
    code = f"from engine_runtime.open import runtime_module; print(runtime_module({runtime!r}).VERSION)"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    assert list(tmp_path.iterdir()) == []
