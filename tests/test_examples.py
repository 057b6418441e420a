"""Every example is short, runs on a real line or file, and does what its first line says."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from line_rig import COMMANDS, REPOSITORY, RunningLine, free_address, part_image, running, write_config
from patience import PATIENCE_S

EXAMPLES = REPOSITORY / "examples"
LONGEST = 40


def start(example: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-u", str(EXAMPLES / example), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(example: str, *arguments: object, code: int = 0) -> str:
    with start(example, *arguments) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, said
    return said


def first_line_of(example: str, *arguments: object, after: str = "") -> str:
    """Give the first line that does not begin with ``after``, and end the example."""
    with start(example, *arguments) as process:
        assert process.stdout is not None
        said = next(row for row in process.stdout if not (after and row.startswith(after)))
        process.kill()
    return said


class Line:
    """A running line; every fourth part is defective."""

    def __init__(self, folder: Path, **keys: Any) -> None:
        for number in range(4):
            part_image(folder / "parts" / f"{number}.png", bright=number == 3)
        self.publish, self.control = free_address(), f"ipc://{folder}/control"
        self.config = write_config(
            folder,
            {"top": {"source": str(folder / "parts"), "loop": True, "fps": 100}},
            publish=self.publish,
            control=self.control,
            journal={"file": str(folder / "line3.journal")},
            **keys,
        )


@pytest.fixture
def line(line_folder: Path) -> Iterator[tuple[Line, RunningLine]]:
    product = {"engine": "brightness.engine", "calibration": "brightness.calibration.yaml"}
    line = Line(
        line_folder,
        engine=None,
        calibration=None,
        products={"flange": product, "cover": product},
        product="flange",
        archive={"folder": str(line_folder / "rejects"), "max_mb": 10},
    )
    with running(line.config) as daemon:
        daemon.until(lambda heard: heard.health.state == "running" and len(heard.verdicts) > 8)
        yield line, daemon


def test_what_asks_a_line(line: tuple[Line, RunningLine]) -> None:
    publish, control = line[0].publish, line[0].control
    assert "line3: running" in run("health.py", publish, "line3")
    assert json.loads(run("status_json.py", control))["line"] == "line3"
    assert "cover" in run("change_over.py", control, "cover")
    assert "lid" in run("change_over.py", control, "lid", code=1)
    assert "taken up" in run("reload_line.py", control)
    assert ".overlay" in run("rejects_of_the_hour.py", control)
    assert run("latency.py", publish, "line3", 20).count("median") == 3


def test_what_acts_on_verdicts(line: tuple[Line, RunningLine]) -> None:
    publish, control = line[0].publish, line[0].control
    assert re.fullmatch(r"eject top \d+\n", first_line_of("eject_later.py", publish, "line3", 0.1))
    assert re.fullmatch(
        r"top: passing parts score .*\n", first_line_of("score_alarm.py", publish, "line3", 0.1)
    )
    received = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            verdict = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert verdict["decision"] == "reject"
            received.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = first_line_of("post_rejects.py", control, "line3", f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert received.is_set() and said.startswith("sent top ")


def test_what_listens_until_the_line_is_silent(line: tuple[Line, RunningLine], tmp_path: Path) -> None:
    publish, table = line[0].publish, tmp_path / "verdicts.csv"
    with (
        start("count_by_camera.py", publish, "line3") as count,
        start("csv_log.py", publish, "line3", table) as log,
        start("stop_on_faults.py", publish, "line3", 5) as stop,
    ):
        line[1].until(lambda _: table.exists() and table.read_text().count("\n") > 20)
        seen = len(line[1].verdicts)
        line[1].until(lambda heard: len(heard.verdicts) > seen + 200)  # the others have connected, too
        line[1].process.kill()
        said = [process.communicate(timeout=PATIENCE_S)[0] for process in (count, log, stop)]
    assert re.search(r"top +reject +\d+\n", said[0]) and re.search(r"top +pass +\d+\n", said[0])
    assert "ends here" in said[1]
    assert table.read_text().splitlines()[1].split(",")[1] == "top"
    assert said[2].startswith("stop line3: ") and stop.returncode == 1


def test_a_gate_with_keys(line_folder: Path) -> None:
    for name in ("line3", "gate"):
        subprocess.run([COMMANDS / "inspectctl", "keygen", name, "--out", line_folder], check=True)
    key = re.search(r'public-key = "(.{40})"', (line_folder / "gate.key").read_text())
    assert key
    curve = {"secret_key": str(line_folder / "line3.key_secret"), "clients": {"gate": {"key": key[1]}}}
    line = Line(line_folder, curve=curve)
    files = (line_folder / "gate.key_secret", line_folder / "line3.key")
    with subprocess.Popen([COMMANDS / "inspectd", "--config", line.config]) as daemon:
        # It is silent until the daemon has started.
        said = first_line_of("secure_gate.py", line.publish, "line3", *files, after="eject everything")
        daemon.terminate()
    assert re.fullmatch(r"reject top \d+\n", said)


def test_what_reads_files(line: tuple[Line, RunningLine], tmp_path: Path) -> None:
    line[1].stop()
    engine, calibration = tmp_path / "brightness.engine", tmp_path / "brightness.calibration.yaml"
    assert "onnxruntime" in run("engine_facts.py", engine)
    said = run("judge_images.py", engine, calibration, tmp_path / "parts")
    assert [row.split()[0] for row in said.splitlines()] == ["pass", "pass", "pass", "reject"]
    heat = tmp_path / "heat.png"
    assert "x = " in run("heat_map.py", engine, calibration, tmp_path / "parts/3.png", heat)
    assert heat.stat().st_size > 0
    assert "64×64" in run("grab_frames.py", tmp_path / "parts", 2)
    assert "lie in" in run("draw_parts.py", tmp_path / "drawn", 3)
    assert len(list((tmp_path / "drawn").iterdir())) == 3
    assert run("audit_journal.py", tmp_path / "line3.journal")


def test_each_is_short_says_what_it_does_and_is_run_here() -> None:
    run_somewhere = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*_examples.py"))
    run_somewhere += Path(__file__).read_text() + Path(__file__).with_name("test_plant_opcua.py").read_text()
    examples = [path for path in EXAMPLES.glob("*.py") if path.name not in {"demo.py", "demo_line.py"}]
    assert len(examples) >= 20
    for path in examples:
        lines = path.read_text().splitlines()
        assert len(lines) < LONGEST, path.name
        assert f"python {path.name}" in lines[0], path.name
        assert f'"{path.name}"' in run_somewhere, path.name
