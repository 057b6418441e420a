import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from brightness import THRESHOLD, brightness_model, calibrate
from delivery_line import DeliveryLine
from hypothesis import settings
from line_rig import REPOSITORY
from slow_tests import slow_tests

# A shell lets what it starts in the background ignore Ctrl-C, and children inherit that: some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline for each example would measure what else the machine does, and whether coverage counts lines.
settings.register_profile("without-deadline", deadline=None)
settings.load_profile("without-deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", action="store_true", help="write the docs' pictures of the operators' page"
    )


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would hand out the files with the most tests first; ours come with the longest first.
    config.option.loadscopereorder = False


@pytest.hookimpl(hookwrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark what is in the list of slow tests, and each fault, before ``-m`` looks at marks.

    Beside each other, the files that take longest come first, so that no process is left with one at the end.
    """
    slow = slow_tests()
    for item in items:
        if item.nodeid.split("[")[0] in slow or item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.slow)
    yield
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        longest_first(items, slow)


def longest_first(items: list[pytest.Item], slow: dict[str, float]) -> None:
    """Sort whole files: by the seconds of their slow tests, then by how many tests they have."""
    tests = Counter(_file(item) for item in items)
    seconds: defaultdict[str, float] = defaultdict(float)
    # In one order, since sums of floats depend on it: all processes must come to the same.
    for name in sorted({item.nodeid.split("[")[0] for item in items}):
        seconds[name.split("::")[0]] += slow.get(name, 0)
    items.sort(key=lambda item: (-seconds[_file(item)], -tests[_file(item)], _file(item)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::")[0]


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
        [
            *(Path(sys.executable).parent / "build-engine", model, "--runtime", "onnxruntime"),
            *("--max-batch", "8", "--fast"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "brightness.engine"


@pytest.fixture
def line_folder(tmp_path: Path, brightness_engine: Path) -> Path:
    """A folder with an engine and its calibration, ready for a config."""
    engine = tmp_path / "brightness.engine"
    engine.write_bytes(brightness_engine.read_bytes())
    calibrate(engine, tmp_path / "brightness.calibration.yaml", THRESHOLD)
    return tmp_path


@pytest.fixture
def line(tmp_path: Path) -> Iterator[DeliveryLine]:
    """What a line publishes and answers, by a process of its own without cameras and engines."""
    line = DeliveryLine(tmp_path)
    yield line
    if line.process.poll() is None:
        line.kill()


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and lose much where other tests run beside."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
