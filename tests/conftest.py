import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from brightness import THRESHOLD, UNIT_QUANTILES, brightness_model
from line_rig import REPOSITORY

from calibration.calibration_file import Calibration, write_calibration
from engine_runtime.engine_file import read_manifest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that may not be part of the repository; tests that want them skip without them."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data with real images is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def brightness_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The predictable model as a real engine file, made by ``build-engine``."""
    folder = tmp_path_factory.mktemp("engine")
    model = brightness_model(folder / "brightness.onnx")
    subprocess.run(
        [Path(sys.executable).parent / "build-engine", model, "--runtime", "onnxruntime", "--fast"],
        check=True,
        capture_output=True,
    )
    return folder / "brightness.engine"


@pytest.fixture
def line_folder(tmp_path: Path, brightness_engine: Path) -> Path:
    """A folder with an engine and its calibration, ready for a config."""
    engine = tmp_path / "brightness.engine"
    engine.write_bytes(brightness_engine.read_bytes())
    calibration = Calibration(
        format_version=1,
        model="brightness",
        engine_sha256=read_manifest(engine).payload_sha256,
        quantiles=UNIT_QUANTILES,
        threshold=THRESHOLD,
        wanted_false_reject_rate=0.001,
        false_reject_rate_interval=(0.0, 0.01),
        confidence=0.95,
        good_images=100,
        good_images_sha256="0" * 64,
        roi=None,
        made_at="2026-01-01T00:00:00Z",
        tool_version="test",
    )
    write_calibration(tmp_path / "brightness.calibration.yaml", calibration)
    return tmp_path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 32 megabytes, which can be filled without harm."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
