"""Models for inference servers, and engines that have one judge."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from brightness import SIZE, THRESHOLD, brightness_model, calibrate
from fleet_rig import until
from in_process import refused, run
from line_rig import write_config

pytest.importorskip("tritonclient", reason="needs tritonclient: pip install 'inspectd[kserve]'")

from inference_server import InferenceServer, MlServer, Triton

from calibration.calibration_file import read_calibration
from daemon.cli import main as inspectd
from engine_build.cli import main as build_engine
from engine_runtime.engine import ANOMALY_MAP, SCORE, uncalibrated
from engine_runtime.engine_file import read_manifest
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import EngineAway, EngineRefused, EngineUnavailable
from pictures.frames import Size
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles

QUANTILES = {"local": (0.1, 0.4), "global": (0.0, 0.2)}
NOBODY = "grpc://127.0.0.1:9"


@pytest.fixture
def calibrated(tmp_path: Path, brightness_engine: Path) -> tuple[Path, Path]:
    """A graph, and a calibration that was made on an engine of it."""
    model = brightness_model(tmp_path / "brightness.onnx")
    calibrate(brightness_engine, tmp_path / "made.yaml", THRESHOLD, quantiles=QUANTILES)
    return model, tmp_path / "made.yaml"


def build(model: Path, calibration: Path, *more: object) -> str:
    """Write the model into a repository; give what the command said."""
    repository = model.parent / "models"
    done = run(build_engine, model, "--triton-repository", repository, "--calibration", calibration, *more)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def frames(count: int) -> list[np.ndarray]:
    return [np.full((SIZE, SIZE, 3), 20 + 50 * index, np.uint8) for index in range(count)]


def test_a_repository_has_the_quantiles_inside(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    model, calibration = calibrated
    assert "version 1" in build(model, calibration)
    folder = tmp_path / "models/brightness"
    plain = onnxruntime.InferenceSession(model)
    served = onnxruntime.InferenceSession(folder / "1/model.onnx")
    assert [given.name for given in served.get_inputs()] == ["frames"]
    batch = np.stack(frames(3))
    quantiles = np.array(list(QUANTILES.values()), np.float32)
    expected = plain.run([SCORE, ANOMALY_MAP], {"frames": batch, "quantiles": quantiles})
    found = served.run([SCORE, ANOMALY_MAP], {"frames": batch})
    assert found[0].shape == (3, 1) and np.array_equal(found[0][:, 0], expected[0])
    assert np.array_equal(found[1], expected[1])
    config = (folder / "config.pbtxt").read_text()
    assert 'name: "score" data_type: TYPE_FP32 dims: [ 1 ]' in config
    assert "dims: [ 64, 64, 3 ]" in config and "max_batch_size: 16" in config

    # What is the same stays one version; another calibration is another one, and lines keep theirs.
    before = (folder / "1/model.onnx").read_bytes()
    assert "version 1" in build(model, calibration)
    changed = read_calibration(calibration).model_copy(
        update={"quantiles": {**QUANTILES, "local": (0.1, 0.5)}}
    )
    calibration.write_text(yaml.safe_dump(changed.model_dump(mode="json")))
    assert "version 2" in build(model, calibration, "--server", NOBODY)
    assert (folder / "1/model.onnx").read_bytes() == before
    engine = tmp_path / "brightness.served.engine"
    manifest = read_manifest(engine)
    assert manifest.server is not None and manifest.server.version == "2"
    beside = read_calibration(tmp_path / "brightness.served.calibration.yaml")
    assert beside == changed.model_copy(update={"engine_sha256": manifest.payload_sha256})


def test_what_does_not_fit_is_one_line(calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    model, calibration = calibrated
    text, repository = calibration.read_text(), tmp_path / "models"

    def says(words: str, *options: object) -> None:
        assert words in refused(run(build_engine, model, *options))
        assert not list(repository.rglob("*.onnx"))

    both = ("--triton-repository", repository, "--calibration", calibration)
    says("--triton-repository: needs --calibration FILE", "--triton-repository", repository)
    says("--server: is for --triton-repository DIR", "--server", NOBODY)
    says("expected grpc://HOST:PORT", *both, "--server", "http://127.0.0.1:8000")
    says("--model-name: found '../x'", *both, "--model-name", "../x")
    calibration.write_text(text.replace("model: brightness", "model: other"))
    says("is of model other with the maps local, global; expected brightness", *both)
    calibration.write_text(text.replace("0.4", "0.05"))
    says("expected a smaller and a larger number for each map", *both)
    calibration.write_text("just: this\n")
    says("found no engine_sha256 and quantiles; expected a file written by calibrate", *both)
    calibration.unlink()
    says("made.yaml: cannot be read", *both)


AS_WRITTEN = "as_written"
"""A second model, which no server is changed to run."""


@pytest.fixture(scope="module", params=[MlServer, Triton])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, brightness_engine: Path
) -> Iterator[InferenceServer]:
    request.param.refuse_without()
    folder = tmp_path_factory.mktemp("served")
    model = brightness_model(folder / "brightness.onnx")
    calibrate(brightness_engine, folder / "made.yaml", THRESHOLD, quantiles=QUANTILES)
    build(model, folder / "made.yaml")
    build(model, folder / "made.yaml", "--model-name", AS_WRITTEN)
    made = request.param(folder / "server", folder / "models/brightness")
    yield made
    made.close()


@pytest.mark.slow
def test_a_server_judges(server: InferenceServer, calibrated: tuple[Path, Path], tmp_path: Path) -> None:
    model, calibration = calibrated
    build(model, calibration, "--server", NOBODY, "--server", server.address, "--server-timeout", 20_000)
    engine = open_engine(tmp_path / "brightness.served.engine")
    # The first server is away, the second judges; what it says is what the graph says.
    assert engine.trouble is not None and engine.trouble.startswith("127.0.0.1:9: UNAVAILABLE")
    grid = TileGrid(Tiles(SIZE, 0), Size(SIZE, 2 * SIZE))
    assert TiledEngine(engine, TileMerge(grid, engine.manifest.geometry)).trouble == engine.trouble
    plain = onnxruntime.InferenceSession(model)
    for quantiles in (np.array(list(QUANTILES.values()), np.float32), uncalibrated(QUANTILES)):
        found = engine.infer(frames(3), quantiles, engine.manifest.outputs)
        expected = plain.run(
            list(engine.manifest.outputs), {"frames": np.stack(frames(3)), "quantiles": quantiles}
        )
        for name, values in zip(engine.manifest.outputs, expected, strict=True):
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="a batch of 17 frames"):
        engine.infer(frames(1) * 17, quantiles)
    # Rubbish is never a score.
    for mode, words in (
        ("shape", "of shape"),
        ("nan", "with NaN or infinite values|not a float"),  # MLServer cannot send it
        ("type", "expected floats"),
    ):
        server.behaves(mode)
        with pytest.raises(EngineAway, match=words):
            _until_asked(engine)
        server.behaves("")
    _until_asked(engine)
    if isinstance(server, Triton):
        _shares_memory(server, engine, tmp_path)
    engine.close()
    # The line's own check: in order, and refused where the server has another model.
    write_config(
        tmp_path,
        {"top": {"source": "simulated://?width=64&height=64"}},
        engine="brightness.served.engine",
        calibration="brightness.served.calibration.yaml",
    )
    assert run(inspectd, "--config", tmp_path / "line3.yaml", "--check").returncode == 0
    changed = read_calibration(calibration).model_copy(
        update={"quantiles": {**QUANTILES, "local": (0.1, 0.5)}}
    )
    calibration.write_text(yaml.safe_dump(changed.model_dump(mode="json")))
    shutil.rmtree(tmp_path / "models")  # so that this becomes version 1, too
    build(model, calibration, "--server", server.address, "--server-timeout", 20_000)
    with pytest.raises(EngineRefused, match=r"parity failed: .* differs from the FP32 graph"):
        open_engine(tmp_path / "brightness.served.engine")
    build(model, calibration, "--server", NOBODY)
    with pytest.raises(EngineUnavailable, match=r"no server judged it: 127\.0\.0\.1:9: UNAVAILABLE"):
        open_engine(tmp_path / "brightness.served.engine")
    build(model, calibration, "--server", server.address, "--model-name", "unknown")
    with pytest.raises(EngineUnavailable, match="unknown"):
        open_engine(tmp_path / "brightness.served.engine")


def _shares_memory(server: Triton, engine: object, folder: Path) -> None:
    """See that frames lie where the server reads them, whatever becomes of it, and that none is left over."""
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")

    def regions() -> set[str]:
        return set(client.get_system_shared_memory_status().regions)

    [before] = regions()
    assert not list(Path("/dev/shm").glob("inspectd-[0-9]*-*"))  # whoever dies leaves none behind
    # It is started anew between two parts: it does not know the memory any more, and no part is lost.
    server.kill()
    server.start()
    until(lambda: _reached(client))
    _until_asked(engine)
    [after] = regions()
    assert after != before
    # One that hangs may answer later: it gets no other memory until it is started anew.
    other = open_engine(folder / "brightness.served.engine")
    assert len(regions()) == 2
    other.close()
    assert regions() == {after}
    _remote(engine)._server = _remote(engine)._server.model_copy(update={"timeout_ms": 500.0})
    server.behaves("slow")
    with pytest.raises(EngineAway, match="no answer within 500 ms"):
        _until_asked(engine)
    server.behaves("")
    until(lambda: _judged(engine))
    assert _remote(engine)._memory is None and regions() == {after}
    server.kill()
    with pytest.raises(EngineAway, match="UNAVAILABLE"):
        _until_asked(engine)
    server.start()
    until(lambda: _judged(engine))
    until(lambda: _reached(client))
    assert len(regions()) == 1 and regions() != {after}
    # And the repository is one to it, but for a backend that the wheel does not hold.
    told = {model.name: model.reason for model in client.get_model_repository_index().models}
    assert "unable to find backend library for backend 'onnxruntime'" in told[AS_WRITTEN]


def _remote(engine: object) -> Any:
    return engine._servers[0]  # type: ignore[attr-defined]


def _reached(client: Any) -> bool:
    """Wait for a channel that was without its server."""
    import tritonclient.grpc as triton

    try:
        return bool(client.is_server_live())
    except triton.InferenceServerException:
        return False


def _judged(engine: object) -> bool:
    try:
        _until_asked(engine)
    except EngineAway:
        return False
    return True


def _until_asked(engine: object) -> None:
    """Have a frame judged by the server that answers, once its pause is over."""
    for server in engine._servers:  # type: ignore[attr-defined]
        server.due_s = 0.0
    engine.infer(frames(1), np.array(list(QUANTILES.values()), np.float32))  # type: ignore[attr-defined]
