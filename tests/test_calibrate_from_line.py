"""``calibrate --camera``: good parts of a running line, which does not notice."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from line_process import a_verdict
from line_rig import COMMANDS, running, write_config
from patience import PATIENCE_S
from test_daemon_reload import rewrite

from calibration.calibration_file import read_calibration
from calibration.cli import main as calibrate
from foundation.errors import InputError
from lines.collecting import NOTES, Collected, Collecting
from lines.line_config import read_line

THRESHOLD = 0.38
"""A few parts in a hundred are above it."""


def line_of_parts(folder: Path, **archive: Any) -> Path:
    """A line whose parts differ, and of which a few are rejected."""
    random = np.random.default_rng(0)
    (folder / "parts").mkdir()
    for index in range(200):
        grain = cv2.resize(random.normal(0, 25, (8, 8)).astype(np.float32), (64, 64))
        picture = np.clip(random.normal(45, 6) + grain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "parts" / f"{index:03}.png"), cv2.merge([picture] * 3))
    file = folder / "brightness.calibration.yaml"
    content = yaml.safe_load(file.read_text()) | {"threshold": THRESHOLD}
    file.write_text(yaml.safe_dump(content))
    return write_config(
        folder,
        {"top": {"source": "parts", "fps": 60, "loop": True}},
        journal={"file": "line3.journal"},
        control=f"ipc://{folder}/control",
        archive={"folder": "archive", **archive},
        deadline_ms=60_000,
    )


@pytest.mark.slow
def test_good_parts_come_from_the_running_line(line_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = line_of_parts(line_folder, sample=0.5, near_misses=0.1)
    own = line_folder / "brightness.calibration.yaml"
    before, new = own.read_text(), line_folder / "new-brightness.calibration.yaml"
    collected = line_folder / "new-brightness.calibration.good"
    command = ["--camera", str(config), "--false-reject-rate", "0.02"]

    def refused(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = calibrate([*command, *arguments])
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        return code, said

    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 5)
        collecting = subprocess.Popen(
            [COMMANDS / "calibrate", *command, "--count", "100000"], stderr=subprocess.PIPE, text=True
        )
        line.until(lambda _: len(list(collected.glob("*.png"))) > 10)
        collecting.send_signal(signal.SIGINT)
        _, said = collecting.communicate(timeout=PATIENCE_S)
        assert collecting.returncode == 130
        assert "pictures are kept in" in said.splitlines()[-1]
        assert "the same command goes on" in said.splitlines()[-1]
        kept = len(list(collected.glob("*.png")))
        assert not new.exists()

        assert calibrate([*command, "--count", "60"]) == 0
        shown = capsys.readouterr().out
        assert "from the line" in shown
        assert "compared with" in shown
        assert kept < 60 <= len(list(collected.glob("*.png")))

        code, said = refused("--count", "60", "--with-rejects")
        assert code == 2 and "was collected by another engine, threshold or choice of parts" in said
        code, said = refused("--good", str(line_folder / "parts"))
        assert code == 2 and "holds other files" in said
        rewrite(own, lambda content: content.update(threshold=0.4))
        code, said = refused("--good", str(line_folder / "third"), "--count", "20")
        assert code == 2 and "the line judges by" in said
        own.write_text(before)

        good = line_folder / "all"
        assert calibrate([*command, "--count", "40", "--with-rejects", "--good", str(good)]) == 0
        line.stop()
    assert [verdict.seq for verdict in line.verdicts] == list(range(1, len(line.verdicts) + 1))
    assert {verdict.reason for verdict in line.verdicts} <= {None, "shutdown"}
    assert own.read_text() == before
    made, notes = read_calibration(new), json.loads((collected / NOTES).read_text())
    assert made.quantiles == read_calibration(own).quantiles
    assert made.drift is not None
    assert notes["passes"] > notes["rejects"] > 0
    page = new.with_suffix(".html").read_text()
    assert "collected from the line" in page
    assert json.loads((line_folder / "new-brightness.calibration.json").read_text())["from_line"] is not None
    code, said = refused("--count", "1000", "--with-rejects", "--good", str(good))
    assert code == 1 and "pictures are kept in" in said  # the line is gone


def test_what_cannot_be_collected_is_refused_in_one_line(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = line_of_parts(line_folder)
    engine = str(line_folder / "brightness.engine")

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert calibrate(list(arguments)) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        return said

    assert "archive.sample: found 0, expected the share of passes" in refused("--camera", str(config))
    rewrite(config, lambda content: content.pop("archive"))
    assert "archive: found no such section" in refused("--camera", str(config))
    assert "product 'x': unknown" in refused("--camera", str(config), "--product", "x")
    assert "is not the engine of" in refused("other.engine", "--camera", str(config))
    assert "not both" in refused("--camera", str(config), "--from-labels", ".")
    assert "--count: found without --camera" in refused(engine, "--good", ".", "--count", "30")
    assert "expected an engine, or --camera" in refused("--good", ".")
    assert "--good DIR" in refused(engine)


def test_a_line_that_has_not_read_its_config_is_noticed(line_folder: Path) -> None:
    line = read_line(line_of_parts(line_folder, sample=0.5))
    collecting = Collecting(line, line_folder / "good", Collected("ab", 0.5, False), "brightness")
    told = {"score": 0.1, "threshold": 0.5, "model": "brightness", "archive": None}
    with pytest.raises(InputError, match=r"archive.sample: found 0.5, .* of the last 81 passes: inspectctl"):
        for number in range(1, 200):
            collecting._take(a_verdict(number, **told))
    assert collecting.collected.passes == 81
