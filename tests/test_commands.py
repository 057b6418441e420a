"""What all commands do alike, tried on the commands themselves."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_set_folders import draw_part
from engine_graphs import little_model, save
from patience import PATIENCE_S

from foundation.errors import Unavailable
from foundation.files import replacing
from foundation.start import COMMANDS as COMMANDS_OF

COMMANDS = Path(sys.executable).parent
ALL = (
    "efficientad",
    "train-model",
    "evaluate-model",
    "import-anomalib",
    "build-engine",
    "calibrate",
    "inspectd",
    "inspectctl",
    "inspectd-dashboard",
    "inspectd-plant",
    "inspectd-fleet",
)
HEAVY = {
    *("asyncua", "av", "cryptography", "cv2", "duckdb", "nats", "numpy", "onnx", "onnxruntime", "openvino"),
    *("optuna", "paho", "pyarrow", "pydantic", "pymodbus", "ray", "scipy", "starlette", "torch", "tuf"),
    *("uvicorn", "zmq"),
}


def run(command: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / command, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def only_line(done: subprocess.CompletedProcess[str], command: str) -> str:
    """Give the one line that a command ended with."""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{command}"), line
    return line


def test_every_command_has_its_entry_point() -> None:
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    expected = {command: f"foundation.start:{command.replace('-', '_')}" for command in COMMANDS_OF}
    assert scripts == expected
    assert sorted(ALL) == sorted(scripts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(little_model(64, 64), tmp_path_factory.mktemp("model") / "little.onnx")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "good"
    for index in range(4):
        draw_part(folder / f"{index}.png", index)
    return folder


@pytest.mark.parametrize(
    "arguments", [*((command,) for command in ALL), ("efficientad", "evaluate"), ("efficientad", "ablate")]
)
def test_help_waits_for_no_heavy_import(arguments: tuple[str, ...]) -> None:
    """Heavy imports show as modules, which unlike a time do not depend on what else the machine does."""
    command, *subcommand = arguments
    script = (
        "import sys\n"
        "from foundation import start\n"
        f"sys.argv = {[command, *subcommand, '--help']!r}\n"
        "try:\n"
        f"    start.{command.replace('-', '_')}()\n"
        "finally:\n"
        f"    print(*{HEAVY!r} & sys.modules.keys(), file=sys.stderr, end='')\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"usage: {' '.join(arguments)} ") and shown.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "package"),
    [(["build-engine", "MODEL"], "onnx"), (["calibrate", "x.engine", "--good", "GOOD"], "scipy")],
)
def test_what_an_extra_would_bring_is_one_line(
    arguments: list[str], package: str, model: Path, good: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    names = {"GOOD": str(good), "MODEL": str(model)}
    command, *words = (names.get(word, word) for word in arguments)
    done = subprocess.run(
        [COMMANDS / command, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert (
        only_line(done, command) == f"{command}: {package} is not installed; expected inspectd with [build]"
    )


@pytest.mark.parametrize("command", ALL)
def test_a_wrong_option_is_one_line(command: str) -> None:
    subcommand = {"efficientad": ["export"], "inspectctl": ["status"]}.get(command, [])
    done = run(command, *subcommand, "--no-such-option\x1b")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "\x1b" not in only_line(done, command)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("efficientad", ["train", "--data", "GOOD", "--steps", "3", "--out", "m.pt"]),
        ("train-model", ["--data", "GOOD", "--out", "m.onnx"]),
        ("evaluate-model", ["MODEL", "--data", "GOOD", "--out", "report"]),
        ("build-engine", ["MODEL"]),
        ("calibrate", ["x.engine", "--good", "GOOD"]),
        ("inspectctl", ["status", "--address", "tcp://127.0.0.1:5999", "--line", "x"]),
    ],
)
def test_ctrl_c_while_modules_load_is_one_line(
    command: str, arguments: list[str], model: Path, good: Path, tmp_path: Path
) -> None:
    """The interrupt comes with the first module of numpy's, or with the command's own where it needs none."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('argparse', 'numpy', 'zmq'):\n"
        "            sys.meta_path.remove(self)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    names = {"GOOD": str(good), "MODEL": str(model)}
    done = subprocess.run(
        [COMMANDS / command, *(names.get(word, word) for word in arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 130, done.stderr
    assert only_line(done, command).startswith(f"{command}: interrupted")


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("module", ["cli", "foundation.command"])
def test_ctrl_c_before_anything_is_loaded_is_one_line(command: str, module: str, tmp_path: Path) -> None:
    """The interrupt comes with the very first modules of ours after the entry point."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.endswith({module!r}):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run(
        [COMMANDS / command, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert only_line(done, command) == f"{command}: interrupted"


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import foundation.start\n"
        "raise SystemExit(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_interrupt_that_falls_into_a_finaliser_is_not_lost() -> None:
    script = (
        "import os, signal, time\n"
        "from foundation.command import run_command\n"
        "class Last:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(1000): pass\n"
        "def work():\n"
        "    Last()\n"
        "    time.sleep(30)\n"
        "    return 0\n"
        "raise SystemExit(run_command('x', work))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "x: interrupted\n")


def test_a_second_ctrl_c_says_nothing() -> None:
    script = (
        "import os, signal, threading, time\n"
        "from foundation.command import run_command\n"
        "threading.Thread(target=time.sleep, args=(30,)).start()\n"
        "def work(): raise KeyboardInterrupt\n"
        "code = run_command('x', work)\n"
        "print('ended', flush=True)\n"
        "raise SystemExit(code)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S)[1] == "x: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["efficientad", "train", "--data", "GOOD", "--steps", "3", "--out", "TARGET"],
        ["efficientad", "export", "MODEL", "-o", "TARGET"],
        ["efficientad", "distill", "--backbone", "b.onnx", "--images", "GOOD", "--steps", "3"],
        ["train-model", "--data", "GOOD"],
        ["build-engine", "MODEL", "-o", "TARGET"],
        ["calibrate", "MODEL", "--good", "GOOD", "-o", "TARGET"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("fault", ["folder", "device", "no parent"])
def test_output_that_cannot_be_written_is_found_before_the_work(
    arguments: list[str], fault: str, model: Path, good: Path, tmp_path: Path
) -> None:
    suffix = {"distill": ".safetensors", "--data": ".onnx"}.get(arguments[1], ".out")
    target = tmp_path / f"target{suffix}"
    if fault == "folder":
        target.mkdir()
    elif fault == "device":
        target.symlink_to("/dev/null")
    else:
        target = tmp_path / "nowhere" / target.name
    names = {"GOOD": str(good), "MODEL": str(model), "TARGET": str(target)}
    words = [names.get(word, word) for word in arguments]
    if "TARGET" not in arguments:
        words += ["--out", str(target)]
    done = run(words[0], *words[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert only_line(done, words[0]).startswith(f"{words[0]}: {target}: cannot be written: ")
    assert not target.is_file()
    assert Path("/dev/null").is_char_device()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder without permission, and what to put before a command so that it holds for root, too."""
    folder = tmp_path / "closed"
    folder.mkdir()
    before: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may enter every folder, and setpriv is not installed")
        before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        os.chown(folder, 65534, 65534)
    folder.chmod(0)
    yield folder, before
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "arguments",
    [
        ["efficientad", "train", "--data", "CLOSED/in", "--steps", "1", "--out", "m.pt"],
        ["efficientad", "train", "--data", "GOOD", "--steps", "1", "--out", "CLOSED/m.pt"],
        ["train-model", "--data", "GOOD", "--out", "CLOSED/m.onnx"],
        ["evaluate-model", "CLOSED/m.onnx", "--data", "CLOSED/in", "--out", "CLOSED/report"],
        ["build-engine", "CLOSED/m.onnx"],
        ["build-engine", "MODEL", "--fast", "-o", "CLOSED/m.engine"],
        ["calibrate", "CLOSED/m.engine", "--good", "CLOSED/in"],
        ["inspectd", "--config", "CLOSED/line.yaml"],
        ["inspectctl", "record", "CLOSED/in", "--out", "frames"],
        ["inspectctl", "record", "GOOD", "--out", "CLOSED/frames"],
        ["inspectctl", "keygen", "line", "--out", "CLOSED/keys"],
        ["inspectctl", "audit", "CLOSED/journal"],
        ["inspectctl", "install-service", "--prefix", "CLOSED/etc", "--inspectd", "/opt/inspectd"],
    ],
    ids=" ".join,
)
def test_a_folder_without_permission_is_named(
    arguments: list[str], closed: tuple[Path, list[str]], model: Path, good: Path, tmp_path: Path
) -> None:
    folder, before = closed
    words = [
        word.replace("CLOSED", str(folder)).replace("GOOD", str(good)).replace("MODEL", str(model))
        for word in arguments
    ]
    done = subprocess.run(
        [*before, COMMANDS / words[0], *words[1:]], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode in (1, 2)
    assert str(folder) in only_line(done, words[0])


def test_a_disk_that_is_full_is_found_before_the_work(small_disk: Path, model: Path) -> None:
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
    done = run("build-engine", model, "--fast", "-o", small_disk / "little.engine")
    assert done.returncode == 1, "it may have room again later"
    expected = f"build-engine: {small_disk}/little.engine: cannot be written: No space left on device"
    assert only_line(done, "build-engine") == expected
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_each_step_of_a_replacing_names_the_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    file = tmp_path / "result"
    file.write_text("old")
    with (
        pytest.raises(Unavailable, match=f"^{file}: cannot be written: No space left"),
        replacing(file) as new,
    ):
        new.write(b"new")
        if step == "write":
            full()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_what_a_block_reads_is_not_blamed_on_what_it_writes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "result"):
        (tmp_path / "gone").read_bytes()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_work_goes_on_when_nobody_reads_its_output(model: Path, tmp_path: Path, unbuffered: str) -> None:
    """Standard output and standard error are pipes whose other end is closed."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [COMMANDS / "build-engine", model, "--fast", "-o", tmp_path / "little.engine"]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writes, stderr=writes, check=False, env=environment)
    os.close(writes)
    assert done.returncode == 0
    assert (tmp_path / "little.engine").is_file()


@pytest.mark.parametrize("command", ALL)
def test_help_that_nobody_reads_ends_without_a_word(command: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [COMMANDS / command, "--help"], stdout=writes, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_a_full_disk_does_not_take_is_one_line(small_disk: Path) -> None:
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
    with (small_disk / "output").open("wb") as output:
        done = subprocess.run(
            [COMMANDS / "build-engine", "--help"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": ""},  # else argparse writes, and minds no failure
        )
    assert done.returncode == 1
    assert only_line(done, "build-engine") == "build-engine: standard output: No space left on device"


@pytest.mark.parametrize("encoding", ["ascii", "euc_kr", "latin-1"])
def test_names_that_the_output_cannot_show_are_escaped(encoding: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"l\xb0\xa1 \xe2\x82\xac")
    done = subprocess.run(
        [COMMANDS / "calibrate", tmp_path / f"{name}.engine", "--good", tmp_path / name],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert rb"l\udcb0\udca1" in line


def test_what_people_do_instead_is_answered_with_the_command(model: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "line3.pt"
    checkpoint.write_bytes(b"PK\x03\x04 of torch")
    line = only_line(run("build-engine", checkpoint), "build-engine")
    assert line.endswith(f"efficientad export {checkpoint} -o {tmp_path / 'line3.onnx'}")

    config = tmp_path / "line.yaml"
    content = (
        "line: t\npublish: tcp://127.0.0.1:5560\nengine: line3.engine\ncameras:\n  top: {source: pictures}\n"
    )
    config.write_text(content)
    line = only_line(run("inspectd", "--config", config, "--check"), "inspectd")
    assert f"{config}: calibration: missing" in line
    assert line.endswith("run calibrate line3.engine --good DIR")
