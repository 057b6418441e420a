"""What is refused with another GPU, driver or TensorRT, as far as can be shown where there is no GPU.

The driver is a small library that answers what is asked before anything is executed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from brightness import THRESHOLD, brightness_model, calibrate
from c_library import c_library
from engine_graphs import little_model, save
from line_rig import part_image, write_config

from engine_build.cli import main as build_engine
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine_file import read_engine, write_engine
from engine_runtime.tensorrt_library import is_installed, library

BIN = Path(sys.executable).parent
MADE_ON_AN_L4 = {"device": "NVIDIA L4", "compute_capability": "8.9"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real plan, built without a GPU."""
    if gpu() is not None:
        pytest.skip("there is an NVIDIA GPU")
    if not is_installed():
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    folder = tmp_path_factory.mktemp("refused")
    model = save(little_model(64, 96), folder / "little.onnx")
    assert build_engine([str(model), "--runtime", "tensorrt", "--max-batch", "2"]) == 0
    return folder / "little.engine"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a driver that says of itself what the environment says."""
    source = Path(__file__).with_name("pretended_driver.c")
    return c_library(source, tmp_path_factory.mktemp("driver") / "libcuda.so.1").parent


def said(driver: Path, *command: object, code: int = 2, **pretended: object) -> str:
    """Run a command that must refuse, and give the one line that it says."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(driver)}
    environment |= {f"PRETENDED_{name}": str(value) for name, value in pretended.items()}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )
    [line] = done.stderr.splitlines()
    assert done.returncode == code, line
    return line


def altered(engine: Path, folder: Path, **changes: object) -> Path:
    """Copy an engine, with something else in its manifest."""
    manifest, payload = read_engine(engine)
    path = folder / "altered.engine"
    write_engine(path, manifest.model_copy(update=changes), payload)
    return path


def tried(driver: Path, engine: Path, *, code: int = 2, **pretended: object) -> str:
    return said(driver, sys.executable, "-m", "engine_runtime.trial", engine, code=code, **pretended)


def test_another_gpu(driver: Path, engine: Path, tmp_path: Path) -> None:
    path = altered(engine, tmp_path, **MADE_ON_AN_L4)
    assert tried(driver, path, NAME="NVIDIA GeForce RTX 5090", MAJOR=12, MINOR=0) == (
        f"{path}: was built for NVIDIA L4, compute capability 8.9; here is NVIDIA GeForce RTX 5090, 12.0:"
        " build it again on this machine"
    )
    # Of the same capability, but with other numbers of cores and less memory.
    assert "here is NVIDIA L40, 8.9" in tried(driver, path, NAME="NVIDIA L40")


@pytest.mark.parametrize(
    ("built_by", "said_of_it"),
    [
        ({"runtime_version": "1.0.0.1"}, "tensorrt_rtx 1.0.0.1; tensorrt_rtx "),
        ({"library": "tensorrt", "runtime_version": "10.9.0"}, "tensorrt 10.9.0; tensorrt_rtx "),
    ],
)
def test_another_tensorrt(
    driver: Path, engine: Path, tmp_path: Path, built_by: dict[str, str], said_of_it: str
) -> None:
    if library()[0] != "tensorrt_rtx":
        pytest.skip("full TensorRT is installed")
    path = altered(engine, tmp_path, **MADE_ON_AN_L4, **built_by)
    line = tried(driver, path)
    assert line.startswith(f"{path}: was built by {said_of_it}")
    assert line.endswith("here cannot read it: build it again")


def test_a_driver_that_is_too_old(driver: Path, engine: Path, tmp_path: Path) -> None:
    refusal = "the NVIDIA driver is too old: it knows CUDA 11.4, and tensorrt"
    assert f"{engine}: {refusal}" in tried(driver, engine, CUDA=11040)
    for runtime in ("tensorrt", "auto"):  # building would crash there
        target = tmp_path / "no.engine"
        command = [BIN / "build-engine", engine.with_suffix(".onnx"), "--runtime", runtime, "-o", target]
        line = said(driver, *command, CUDA=11040)
        assert line.startswith(f"build-engine: {refusal}")
        assert line.endswith(": install a newer driver")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "name"), [(100, "CUDA_ERROR_NO_DEVICE"), (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")]
)
def test_a_driver_that_does_not_work_says_why(driver: Path, engine: Path, code: int, name: str) -> None:
    assert tried(driver, engine, code=3, INIT=code) == f"{engine}: needs an NVIDIA GPU: cuInit: {name}"


def test_a_driver_without_what_is_asked(engine: Path, tmp_path: Path) -> None:
    source = tmp_path / "empty.c"
    source.write_text("int cuInit(unsigned flags) { return 0; }\n")
    c_library(source, tmp_path / "libcuda.so.1")
    expected = f"{engine}: needs an NVIDIA GPU: the NVIDIA driver is too old: it has no cuDeviceGet"
    assert tried(tmp_path, engine) == expected


def test_a_line_is_refused_before_it_starts(driver: Path, engine: Path, line_folder: Path) -> None:
    """The daemon's own check, with a plan for another GPU in the place of its engine."""
    model = brightness_model(line_folder / "brightness.onnx")
    assert build_engine([str(model), "--runtime", "tensorrt"]) == 0
    path = line_folder / "brightness.engine"
    manifest, payload = read_engine(path)
    write_engine(path, manifest.model_copy(update=MADE_ON_AN_L4), payload)
    calibrate(path, line_folder / "brightness.calibration.yaml", THRESHOLD)
    part_image(line_folder / "parts/0.png", bright=False)
    config = write_config(line_folder, {"top": {"source": "parts"}})
    command = [BIN / "inspectd", "--config", config, "--check"]
    line = said(driver, *command, NAME="NVIDIA T4", MAJOR=7, MINOR=5)
    expected = "was built for NVIDIA L4, compute capability 8.9; here is NVIDIA T4, 7.5"
    assert f"brightness.engine: {expected}" in line
    # What may pass is worth another start: the service tries again after 1, not after 2.
    line = said(driver, *command[:-1], code=1, INIT=100)
    assert "brightness.engine: needs an NVIDIA GPU: cuInit: CUDA_ERROR_NO_DEVICE" in line
