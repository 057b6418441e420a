"""The benchmark for GPUs, as far as it runs without one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine_runtime.cuda_driver import gpu
from engine_runtime.engine import map_output, uncalibrated
from engine_runtime.engine_file import read_manifest
from engine_runtime.tensorrt_library import is_installed
from pictures.frames import Size

MAPS = ("local", "global")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from acceleration import torch_ways

    return torch_ways


def test_without_a_gpu_one_line_says_so() -> None:
    if gpu() is not None:
        pytest.skip("there is an NVIDIA GPU")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "gpu.py: needs an NVIDIA GPU: there is no NVIDIA driver\n"


def test_a_peers_python_that_is_none_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--peer-python", BENCHMARKS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = done.stderr.strip().rpartition("\n")[2]
    assert said == (
        f"gpu.py: error: argument --peer-python: {BENCHMARKS}: expected the Python of an environment that has"
        " anomalib"
    )


def test_an_engine_that_was_not_run_is_not_said_to_be_proven(ways: Any, tmp_path: Path) -> None:
    if not is_installed():
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    if gpu() is not None:
        pytest.skip("there is an NVIDIA GPU")
    import gpu as benchmark
    from comparison.session import Session

    session = Session(tmp_path, Path(sys.executable), 1, quick=True, fixed_laps=None)
    engines, part = benchmark.build(session, ("xs",))
    assert read_manifest(engines["xs"]).runtime == "tensorrt"
    [(name, found, difference, share)] = part.table.rows
    assert name == "TensorRT, XS"
    assert found.startswith("tensorrt")
    assert (difference, share) == ("not run", "100%")


def test_torchs_way_computes_what_the_model_does(ways: Any, tmp_path: Path) -> None:
    from comparison.models import draw_frames, write_untrained

    from models.efficientad.model import EfficientAd

    weights, side = tmp_path / "xs.pt", 128
    write_untrained(weights, tmp_path / "xs.onnx", "xs", Size(side, side))
    off = {"position_aware": False, "with_density": False, "with_whole": False}
    model = EfficientAd("xs", Size(side, side), **off).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    frames = draw_frames(Size(side, side), 2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(frames), torch.from_numpy(uncalibrated(MAPS))).score.numpy()
    half = ways.HalfModel(weights, "xs", side, torch.device("cpu"))
    np.testing.assert_allclose(ways.published(half, frames, torch.device("cpu"))(), expected, rtol=0.02)


def test_rewritten_first_layers_compute_what_the_exported_graph_does(ways: Any, tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from comparison.models import draw_frames, write_untrained
    from first_layers import EXPORTED, REWRITES

    write_untrained(tmp_path / "xs.pt", tmp_path / "xs.onnx", "xs", Size(128, 128))
    given = {"frames": draw_frames(Size(128, 128), 2), "quantiles": uncalibrated(MAPS)}
    found = {}
    for name, rewrite in REWRITES.items():
        model = onnx.load(tmp_path / "xs.onnx")
        rewrite(model)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found[name] = session.run([map_output(name) for name in MAPS], given)
    for maps in found.values():
        for rewritten, exported in zip(maps, found[EXPORTED], strict=True):
            np.testing.assert_allclose(rewritten, exported, rtol=1e-3, atol=1e-5)


def test_the_line_of_cameras_says_where_its_slowest_frames_were_held_up(
    ways: Any, tmp_path: Path, brightness_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acceleration import lines
    from comparison.session import Session

    monkeypatch.setattr(lines, "CAMERAS", {1: 20.0})
    session = Session(tmp_path, Path(sys.executable), 1, quick=True, fixed_laps=None)
    part = lines.cameras(session, brightness_engine)
    [row] = part.table.rows
    cells = dict(zip(part.table.columns, row, strict=True))
    assert (cells["cameras"], cells["faults"], cells["frames without a verdict"]) == (
        "1 × 20/s",
        "0 of 100",
        "0",
    )
    median, slow = float(cells["ms, median"]), float(cells["ms, p99"])
    assert 0 < float(cells["in the engine, median"]) < median <= slow
    slowest = part.measured["1 × 20/s"]["slowest"]
    totals = [total for *_, total in slowest]
    assert len(totals) == 100 and totals == sorted(totals, reverse=True)
    for camera, _, waited, inferred, total in slowest:
        assert camera == "camera0" and waited + inferred <= total + 0.01


def test_cameras_get_cores_of_their_own_where_there_are_enough(ways: Any) -> None:
    from acceleration.lines import lines_on

    assert [cores for *_, cores in lines_on(range(4))] == [(), (), ()]
    *_, (count, fps, cores) = lines_on(range(16))
    assert (count, fps, list(cores)) == (4, 250.0, [12, 13, 14, 15])


def test_a_frames_operations_are_those_of_its_convolutions(ways: Any, tmp_path: Path) -> None:
    from comparison.models import write_untrained

    weights, side = tmp_path / "xs.pt", 128
    write_untrained(weights, tmp_path / "xs.onnx", "xs", Size(side, side))
    half = ways.HalfModel(weights, "xs", side, torch.device("cpu"))
    counted = 0

    def count(layer: torch.nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * output[0].numel() * layer.weight[0].numel()

    for layer in half.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    assert ways.model_flops(half, side) == counted > 0
