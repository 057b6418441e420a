"""The logic of the benchmark beside the peer: turns, ratios, pages, the pipe to a child. Needs no peer."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
COMMAND = (sys.executable, str(BENCHMARKS / "cpu.py"))


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_sides_alternate_and_the_warm_up_does_not_count() -> None:
    from comparison.pairing import take_turns

    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return len(order)

    measured = take_turns({"ours": lambda: turn("ours"), "peer": lambda: turn("peer")}, 2, "turns", warm_up=1)
    assert order == ["ours", "peer"] * 3
    assert measured == {"ours": [3, 5], "peer": [4, 6]}


def test_a_ratio_is_that_of_neighbours_not_of_the_medians() -> None:
    from comparison.pairing import ratio

    # A machine that gets ever slower: each pair says "twice", the order of the laps would not.
    measured = {"ours": [10.0, 20.0, 40.0], "peer": [20.0, 40.0, 80.0]}
    found = ratio(measured, "peer", "ours")
    assert (found.p10, found.median, found.p90) == (2, 2, 2)
    with pytest.raises(ValueError):
        ratio({"ours": [1.0], "peer": [1.0, 2.0]}, "peer", "ours")


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
def test_the_spread_holds_the_median(values: list[float]) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    from comparison.pairing import Spread

    spread = Spread.of(values)
    assert min(values) <= spread.p10 <= spread.median <= spread.p90 <= max(values) * (1 + 1e-12)


def test_the_page_and_the_json_say_the_same() -> None:
    from comparison.report import Part, Report, Table

    table = Table(("", "ms"), [("ours", "1.5"), ("anomalib", "1,234.5")])
    part = Part("A title", table, ["A note."], {"ms": {"ours": [1.5], "anomalib": [1234.5]}}, "`cpu.py`.")
    report = Report("A page", "What it is.", True, {"threads": 2}, {"ours": {"torch": "1"}}, {"b": part})
    page = report.markdown()
    assert (
        "## (b) A title\n\n`cpu.py`.\n\n|  | ms |\n| --- | --: |\n| ours | 1.5 |\n| anomalib | 1,234.5 |\n"
        "\nA note.\n" in page
    )
    assert "quick run" in page
    assert "| ours | torch 1 |" in page
    content = json.loads(report.json())
    assert content["parts"]["b"]["measured"]["ms"]["anomalib"] == [1234.5]
    assert content["parts"]["b"]["table"]["rows"][1] == ["anomalib", "1,234.5"]
    assert replace(Part.of(content["parts"]["b"]), table=table) == part
    assert table.text().splitlines() == ["               ms", "ours          1.5", "anomalib  1,234.5"]


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"parts": {"a": {"title": "only"}}}'])
def test_what_is_to_be_updated_has_to_be_a_run(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "cpu.json"
    if content is not None:
        file.write_text(content)
    done = subprocess.run(
        [*COMMAND, "--parts", "a", "--update", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert str(file) in line


def test_maps_are_enlarged_as_torch_does_it() -> None:
    torch = pytest.importorskip("torch")
    from comparison.equality import difference, enlarged

    maps = np.random.default_rng(0).random((2, 24, 40), dtype=np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(maps)[:, None], (4, 4, 4, 4))
    expected = torch.nn.functional.interpolate(padded, size=(128, 192), mode="bilinear")[:, 0].numpy()
    assert enlarged(maps).shape == (2, 128, 192)
    assert difference(enlarged(maps), expected) < 1e-5
    assert difference(enlarged(maps) * 1.001, expected) > 5e-4


def test_our_convolutions_fit_the_peers_in_order(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from comparison.models import write_untrained
    from peer.child import copy_convolutions

    from models.efficientad.networks import autoencoder, pdn
    from pictures.frames import Size

    write_untrained(tmp_path / "s.pt", tmp_path / "s.onnx", "s", Size(256, 256))
    weights = torch.load(tmp_path / "s.pt", weights_only=True)
    image = torch.rand(1, 3, 256, 256)
    for prefix, network in (
        ("student", pdn("s", 768)),
        ("autoencoder", autoencoder("s", Size(256, 256))),
    ):
        expected = pdn("s", 768) if prefix == "student" else autoencoder("s", Size(256, 256))
        expected.load_state_dict(
            {
                key.removeprefix(f"{prefix}."): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
        )
        assert copy_convolutions(weights, prefix, network) == []
        with torch.inference_mode():
            torch.testing.assert_close(network.eval()(image), expected.eval()(image))
    # An image of another size changes one layer, the last of the encoder.
    assert len(copy_convolutions(weights, "autoencoder", autoencoder("s", Size(512, 512)))) == 1


def test_the_child_answers_and_says_what_went_wrong(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from peer.client import Peer, PeerFailed

    with Peer(Path(sys.executable), tmp_path, 1) as child:
        with pytest.raises(PeerFailed, match="close: KeyError: 'nothing'"):
            child.ask("close", name="nothing")
        with pytest.raises(PeerFailed, match="infer: KeyError"):
            child.ask("infer", name="nothing", frames="none.npy")


def test_a_child_that_dies_is_no_endless_wait(tmp_path: Path) -> None:
    from peer.client import Peer, PeerFailed

    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    dying.chmod(0o755)
    with Peer(dying, tmp_path, 1) as child, pytest.raises(PeerFailed, match="exit code 3: no such library"):
        child.ask("versions")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--parts", "z"], "invalid choice: 'z'"),
        (["--laps", "0"], "found '0', expected a whole number from 1"),
        (["--threads", "two"], "found 'two', expected a whole number from 1"),
        (["--json", "missing/cpu.json"], "missing/cpu.json: cannot be written: missing is no folder"),
        (["--peer-venv", "."], ".: is no virtual environment"),
    ],
)
def test_wrong_options_are_named_in_one_line(arguments: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "something.txt").touch()
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "something.txt"]


def test_help_is_quick_and_names_the_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for letter in "abcdefg":
        assert f"\n  {letter}  " in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"torch", "cv2", "openvino", "onnxruntime", "pydantic", "zmq", "numpy"})


def test_processor_time_is_that_of_the_process_and_of_those_below_it() -> None:
    from comparison.line import ProcessorTime

    busy = "while True: pass"
    parent = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent, busy], start_new_session=True) as process:
        try:
            usage = ProcessorTime(process.pid)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                usage.sample()
                time.sleep(0.05)
            own, below = usage.cores()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert own < 0.2
    assert 0.1 < below <= 1.1
