"""The whole way with photographs of real parts, through the command a user would run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from dashboard_rig import Browser
from patience import PATIENCE_S

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bottles_from_photographs_to_verdicts(shared_data: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    subprocess.run(
        [
            sys.executable, BENCHMARKS / "real_parts.py", "--data", shared_data / "bottle",
            "--image-size", "128", "--out", tmp_path / "out", "--json", result,
        ],
        check=True,
    )  # fmt: skip
    figures = json.loads(result.read_text())
    assert figures["frames"] == figures["verdicts"] == 83
    assert figures["defective"] == 63
    assert figures["faults"] == 0
    assert figures["caught"] + figures["missed"] == 63
    assert figures["auroc"] > 0.95
    rejected = figures["caught"] + figures["false_rejects"]
    assert len(list((tmp_path / "out/rejects").glob("*.overlay.jpg"))) == rejected


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_in_short(tmp_path: Path) -> None:
    out = tmp_path / "demo-output"
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--seconds", "6", "--good", "60", "--out", out],
        cwd=BENCHMARKS.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    figures = json.loads((out / "summary.json").read_text())
    assert set(figures) >= {
        "frames", "verdicts", "defective", "caught", "false_rejects", "faults", "latency_ms", "fps"
    }  # fmt: skip
    assert figures["frames"] == figures["verdicts"] > 20
    assert figures["latency_ms"].keys() == {"p50", "p99"}
    # What the subscriber beside the daemon printed is what the daemon decided.
    assert sum(" reject " in line for line in done.stdout.splitlines()) >= figures["caught"]
    assert "make demo-line" in done.stdout

    goes_on = subprocess.Popen(
        [sys.executable, "-m", "examples.demo_line", "--out", out], cwd=BENCHMARKS.parent, process_group=0
    )
    try:
        page = Browser("http://127.0.0.1:8321", transport=httpx.HTTPTransport(retries=8))
        state = page.until("/api/lines/line3", lambda state: state["state"]["code"] == "running")
        assert state["cameras"].keys() == {"top"}
        assert page.ok("/api/lines/line3/verdicts")["total"] >= figures["caught"]
    finally:
        os.killpg(goes_on.pid, signal.SIGINT)
        assert goes_on.wait(PATIENCE_S) == 0
