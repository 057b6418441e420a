import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line_process import LineProcess, a_health, a_verdict
from patience import PATIENCE_S

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = DOCS.parent / "examples"
WITHOUT = EXAMPLES / "without_the_package"


def python(script: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, str(EXAMPLES / script)]


def cpp(folder: Path) -> list[str]:
    for tool in ("g++", "pkg-config"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libzmq"], capture_output=True, text=True, check=False
    )
    if flags.returncode:
        pytest.skip("libzmq3-dev is not installed")
    for package, header in {"cppzmq-dev": "zmq.hpp", "nlohmann-json3-dev": "nlohmann/json.hpp"}.items():
        probe = ["g++", "-fsyntax-only", "-x", "c++", "-"]
        if subprocess.run(
            probe, input=f"#include <{header}>", text=True, capture_output=True, check=False
        ).returncode:
            pytest.skip(f"{package} is not installed")
    program = folder / "subscribe"
    source = str(WITHOUT / "subscribe.cpp")
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        source,
        "-o",
        str(program),
        *flags.stdout.split(),
    ]
    subprocess.run(command, check=True)
    return [str(program)]


def node(folder: Path) -> list[str]:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    # The package brings its binaries along; the install script, which may fetch or build, is not run.
    install = [
        "npm",
        "install",
        "--prefix",
        str(folder),
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "zeromq@6.8.0",
    ]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if done.returncode:
        pytest.skip(
            f"npm cannot install zeromq: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}"
        )
    shutil.copy(WITHOUT / "subscribe.mjs", folder)
    return ["node", str(folder / "subscribe.mjs")]


@pytest.fixture
def line() -> Iterator[LineProcess]:
    line = LineProcess()
    yield line
    line.kill()


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(python("gate.py"), id="gate.py"),
        pytest.param(python("without_the_package/subscribe.py"), id="subscribe.py"),
        pytest.param(cpp, id="subscribe.cpp", marks=pytest.mark.slow),
        pytest.param(node, id="subscribe.mjs", marks=pytest.mark.slow),
    ],
)
def test_an_example_acts_on_rejects_losses_and_silence(
    prepare: Callable[[Path], list[str]], line: LineProcess, tmp_path: Path
) -> None:
    command = [*prepare(tmp_path), line.address, "line3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as example:
        line.wait_for_subscriber()
        line.publish(
            a_health(4),  # joined late: no loss
            a_verdict(5),
            a_verdict(6, decision="reject", part="scratch"),
            a_verdict(6, decision="reject", part="scratch"),
            (b"line3/top/reject", b"{"),
            (b"line3/top/reject", b"null"),
            (b"line3/top/reject",),
            a_verdict(9, decision="fault"),
            a_health(11),
            a_verdict(3, boot="bb", decision="reject", part="dent"),
        )
        assert example.stdout is not None
        said = [example.stdout.readline().replace('"', "").strip() for _ in range(7)]
        line.publish(a_health(3, boot="bb"), a_verdict(4, boot="bb", decision="reject", part="stain"))
        said.append(example.stdout.readline().replace('"', "").strip())
        example.kill()
    assert said == [
        "reject top 106 scratch",
        "lost 7 to 8: treat those parts as rejects",
        "fault top 109 flange",
        "lost 10 to 11: treat those parts as rejects",
        "lost 1 to 2: treat those parts as rejects",
        "reject top 103 dent",
        "silent: stop line3",
        "reject top 104 stain",
    ]


def test_the_page_shows_the_examples_that_are_tested() -> None:
    page = (DOCS / "subscribe.md").read_text()
    shown = re.findall(r"^```(?:python|cpp|js)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    examples = [
        "gate.py",
        "acknowledged_gate.py",
        "without_the_package/subscribe.py",
        "without_the_package/acknowledge.py",
        "without_the_package/subscribe.cpp",
        "without_the_package/subscribe.mjs",
    ]
    assert shown == [(EXAMPLES / name).read_text() for name in examples]
