"""ONNX Runtime on an NVIDIA GPU: it refuses rather than compute on the CPU and say nothing."""

from pathlib import Path

import onnxruntime
import pytest
from engine_graphs import little_model, save

from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from engine_build.half import HALF, half_share, halved
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine_file import read_engine, read_manifest, write_engine
from engine_runtime.open import open_engine
from foundation.errors import EngineRefused

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(little_model(64, 96), tmp_path_factory.mktemp("model") / "little.onnx")


@pytest.fixture
def no_cuda() -> str:
    """What is said to be missing here."""
    if gpu() is None:
        return "needs an NVIDIA GPU: there is no NVIDIA driver"
    if CUDA not in onnxruntime.get_available_providers():
        return (
            "as it is installed here has no CUDA: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    pytest.skip("there are a GPU and an ONNX Runtime for it")


@pytest.fixture
def cuda() -> None:
    if gpu() is None:
        pytest.skip("no NVIDIA GPU")
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")


def test_building_is_refused(
    model: Path, tmp_path: Path, no_cuda: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "no.engine"
    options = ["--runtime", "onnxruntime", "--device", "cuda", "-o", str(target)]
    assert build_engine([str(model), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("build-engine: --device cuda: ")
    assert line.endswith(no_cuda)
    assert not list(tmp_path.iterdir())


def test_opening_is_refused(model: Path, tmp_path: Path, no_cuda: str) -> None:
    path = tmp_path / "elsewhere.engine"
    assert build_engine([str(model), "--runtime", "onnxruntime", "--fast", "-o", str(path)]) == 0
    manifest, payload = read_engine(path)
    assert manifest.executed_on == "cpu"
    write_engine(path, manifest.model_copy(update={"executed_on": "cuda"}), payload)
    with pytest.raises(EngineRefused, match=r"elsewhere\.engine: .*CUDA|an NVIDIA GPU") as refused:
        open_engine(path)
    assert str(refused.value).endswith(no_cuda)


@pytest.mark.parametrize("runtime", ["auto", "openvino", "tensorrt"])
def test_the_other_runtimes_leave_no_choice(
    model: Path, tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--runtime", runtime, "--device", "cuda", "-o", str(tmp_path / "no.engine")]
    assert build_engine([str(model), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--device cuda: is for --runtime onnxruntime" in line


def test_half_precision_is_a_gpus(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--runtime", "onnxruntime", "--precision", "fp16", "-o", str(tmp_path / "no.engine")]
    assert build_engine([str(model), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "precision is fp16; ONNX Runtime runs fp32 and int8 on cpu" in line


def test_the_share_in_half_is_counted_in_the_graph(model: Path) -> None:
    graph = read_graph(model)
    assert half_share(graph.content) == 0
    assert half_share(halved(graph)) == 1
    assert half_share(halved(graph, HALF - {"Conv"})) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_engine_on_the_gpu_is_proven(cuda: None, model: Path, tmp_path: Path, precision: str) -> None:
    path = tmp_path / "line3.engine"
    options = ["--runtime", "onnxruntime", "--device", "cuda", "--precision", precision, "-o", str(path)]
    assert build_engine([str(model), *options]) == 0
    manifest = read_manifest(path)
    assert manifest.executed_on == "cuda"
    assert manifest.proof.complete
    assert manifest.proof.half_precision_share == (precision == "fp16")
    open_engine(path).close()
