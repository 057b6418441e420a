"""Golden samples and test parts: whether a line says so when its verdicts stop being true."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from brightness import SIZE, THRESHOLD, calibrate
from documented_sql import documented_commands, rows_of
from line_process import a_verdict
from line_rig import part_image, running, write_config
from test_daemon_reload import inspectctl, rewrite

from calibration.calibration_file import read_calibration, write_calibration
from daemon.cli import main as inspectd
from daemon.delivery.expectations import Expected
from daemon.inspectctl.cli import main as in_process
from daemon.journal.reader import JournalReader
from pictures.frames import Size
from verdicts import Verdict


def line_with_samples(folder: Path, **keys: Any) -> Path:
    """A line whose camera "top" sees good and bad parts, "side" only good ones; with two golden samples."""
    for camera in ("top", "side"):
        for index in range(4):
            part_image(folder / camera / f"{index}.png", bright=camera == "top" and index == 3)
    cameras = {name: {"source": name, "fps": 50, "loop": True} for name in ("top", "side")}
    control = f"ipc://{folder}/control"
    config = write_config(folder, cameras, journal={"file": "line3.journal"}, control=control, **keys)
    good = part_image(folder / "golden good.png", bright=False)
    bad = part_image(folder / "scratch.png", bright=True)
    assert in_process(["golden", "add", "--config", f"{config}", "--good", f"{good}", "--bad", f"{bad}"]) == 0
    return config


def notes(folder: Path, kind: str) -> list[dict[str, Any]]:
    with JournalReader(folder / "line3.journal") as reader:
        return [json.loads(row.payload) for row in reader.rows(0, 1_000_000) if row.kind == kind]


def golden_is(state: str) -> Any:
    return lambda line: line.health.golden is not None and line.health.golden.state == state


def reasons_of(verdicts: list[Verdict]) -> set[str | None]:
    return {verdict.reason for verdict in verdicts}


def recalibrate(folder: Path, threshold: float) -> None:
    file = folder / "brightness.calibration.yaml"
    write_calibration(file, read_calibration(file).model_copy(update={"threshold": threshold}))


@pytest.mark.slow
def test_a_line_withholds_its_parts_while_a_golden_sample_fails(line_folder: Path) -> None:
    config = line_with_samples(line_folder, golden={"every_h": 0.0003, "on_failure": "stop"})
    with running(config) as line:
        line.until(golden_is("passed"))
        line.until(lambda line: len(line.verdicts) > 20)
        assert line.health.golden is not None and line.health.golden.samples == 2
        selftest = inspectctl("selftest", "--config", config)
        assert (selftest.returncode, selftest.stdout[:7]) == (0, "passed:"), selftest.stderr

        caught = inspectctl("expect", "defect", "--camera", "top", "--config", config, "--by", "Ada")
        assert (caught.returncode, caught.stdout[:7]) == (0, "passed:"), caught.stderr
        missed = inspectctl(
            "expect", "defect", "--camera", "side", "--within", "0.3 s", "--config", config, "--by", "Ada"
        )
        assert (missed.returncode, missed.stdout[:7]) == (1, "failed:"), missed.stderr
        for wrong in (("--camera", "left"), ("--part", ""), ("--camera", "")):
            unknown = inspectctl("expect", "defect", *wrong, "--config", config)
            assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)

        recalibrate(line_folder, 0.001)  # now the good sample would be rejected
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(golden_is("failed"))
        # Frames captured before the reload keep the product that they were captured for.
        line.until(lambda line: reasons_of(line.verdicts[-20:]) == {"golden"})
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        assert reasons_of(line.verdicts[seen:]) == {"golden"}
        assert line.health.state == "degraded"
        assert line.health.golden is not None and line.health.golden.withheld
        assert "golden good.png: expected pass, found reject: score 0.15" in str(line.health.golden.error)
        selftest = inspectctl("selftest", "--config", config)
        assert (selftest.returncode, selftest.stdout[:7]) == (1, "failed:"), selftest.stderr

        recalibrate(line_folder, THRESHOLD)
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(golden_is("passed"))
        line.until(lambda line: reasons_of(line.verdicts[-20:]) == {None})
        assert {verdict.decision for verdict in line.verdicts[-20:]} == {"pass", "reject"}
        line.stop()
    assert [verdict.seq for verdict in line.verdicts] == list(range(1, len(line.verdicts) + 1))
    assert reasons_of(line.verdicts) == {None, "golden"}
    runs = notes(line_folder, "golden")
    assert {"start", "selftest", "reload"} <= {run["why"] for run in runs}
    assert {run["outcome"] for run in runs} == {"passed", "failed"}
    assert {sample["file"] for run in runs for sample in run["samples"]} == {"golden good.png", "scratch.png"}
    asked = notes(line_folder, "expect")
    assert [(note["outcome"], note["by"], note["camera"]) for note in asked] == [
        ("passed", "Ada", "top"),
        ("failed", "Ada", "side"),
    ]
    what_an_auditor_asks_for_is_answered(line_folder / "line3.journal")


def what_an_auditor_asks_for_is_answered(journal: Path) -> None:
    """Run the commands of docs/golden.md."""
    events, outcomes = documented_commands("golden.md")
    for kind in ("golden", "expect", "start", "reload"):
        found = rows_of(events.replace("'golden'", f"'{kind}'"), journal)
        assert found and all(json.loads(payload) for _, payload in found), kind
    hashes = json.loads(rows_of(events.replace("'golden'", "'start'"), journal)[0][1])["sha256"]
    config = journal.with_name("line3.yaml")
    calibration = journal.with_name("brightness.calibration.yaml")
    samples = journal.with_name("brightness.calibration.golden") / "golden.yaml"
    for file in (config, samples):
        assert hashes[str(file)] == hashlib.sha256(file.read_bytes()).hexdigest()
    payload = ["unzip", "-p", f"{journal.with_name('brightness.engine')}", "model.onnx"]
    assert hashes[payload[2]] == read_calibration(calibration).engine_sha256
    if shutil.which("unzip"):
        shown = subprocess.run(payload, capture_output=True, check=True).stdout
        assert hashes[payload[2]] == hashlib.sha256(shown).hexdigest()
    told = [row[1:] for row in rows_of(outcomes, journal)]
    assert {("expect", "Ada", "passed"), ("expect", "Ada", "failed")} <= set(told)
    assert {("golden", "reload", "failed"), ("golden", "selftest", "failed")} <= set(told)


@pytest.mark.slow
def test_a_line_that_only_warns_goes_on(line_folder: Path) -> None:
    config = line_with_samples(line_folder, golden={})
    edit(line_folder, lambda sample: sample.update(score=sample["score"] + 0.1))
    with running(config) as line:
        line.until(golden_is("failed"))
        line.until(lambda line: len(line.verdicts) > 20 and line.health.state == "degraded")
        health = line.health
        line.stop()
    assert health.golden is not None and health.golden.state == "failed" and not health.golden.withheld
    assert "moved by 0.1: score 0.15" in str(health.golden.error)
    assert health.state == "degraded"
    assert {verdict.decision for verdict in line.verdicts} == {"pass", "reject"}


def edit(folder: Path, change: Any) -> None:
    file = folder / "brightness.calibration.golden" / "golden.yaml"
    content = yaml.safe_load(file.read_text())
    for sample in content["samples"]:
        change(sample)
    file.write_text(yaml.safe_dump(content))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run ``inspectctl``, which must refuse in one line; give it."""
    capsys.readouterr()
    assert in_process([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    return told


def test_what_is_no_golden_sample_is_refused_in_one_line(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = line_with_samples(line_folder)
    assert in_process(["golden", "list", "--config", str(config)]) == 0
    assert "scratch.png  reject  score 1" in capsys.readouterr().out
    assert in_process(["golden", "test", "--config", str(config)]) == 0
    good = line_folder / "golden good.png"
    other = part_image(line_folder / "other.png", bright=True, spot=(24, 24))
    add = ("golden", "add", "--config", config)
    assert "is there already" in refused(capsys, *add, "--good", good)
    bright = part_image(line_folder / "bright.png", bright=True, spot=(2, 2))
    assert "expected pass, found reject: score" in refused(capsys, *add, "--good", bright)
    assert "expected --good" in refused(capsys, *add)
    (line_folder / "no.png").write_bytes(b"no picture")
    assert "no.png" in refused(capsys, *add, "--bad", line_folder / "no.png")
    assert "no sample lamp.png" in refused(capsys, "golden", "remove", "lamp.png", "--config", config)
    assert "'washer': unknown" in refused(capsys, "golden", "list", "--config", config, "--product", "washer")
    file = line_folder / "brightness.calibration.yaml"
    calibration = read_calibration(file)
    write_calibration(file, calibration.model_copy(update={"camera_picture": Size(480, 640)}))
    assert f"found {SIZE}×{SIZE} pixels, expected 640×480" in refused(capsys, *add, "--bad", other)
    write_calibration(file, calibration)
    assert in_process(["golden", "remove", "scratch.png", "--config", str(config)]) == 0
    assert [path.name for path in (line_folder / "brightness.calibration.golden").glob("*.png")] == [
        "golden good.png"
    ]


@pytest.mark.slow
def test_a_line_does_not_start_with_samples_that_are_not_its_own(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = line_with_samples(line_folder, golden={"every_h": 4, "on_failure": "stop"})
    folder = line_folder / "brightness.calibration.golden"

    def refuses(expected: str) -> None:
        capsys.readouterr()
        assert inspectd(["--config", str(config), "--check"]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and expected in told, told

    rewrite(config, lambda content: content["golden"].update(on_failure="shout"))
    refuses("golden.on_failure")
    rewrite(config, lambda content: content["golden"].update(on_failure="warn"))
    part_image(folder / "scratch.png", bright=True, spot=(3, 3))
    refuses("scratch.png: was altered")
    (folder / "scratch.png").unlink()
    refuses("scratch.png")
    edit(line_folder, lambda sample: sample.update(score="high"))
    refuses("golden.yaml: samples.0.score")
    edit(line_folder, lambda sample: sample.update(score=0.1, sha256="0" * 64))
    refuses("golden.yaml: samples: Value error, golden good.png is there twice")
    (folder / "golden.yaml").unlink()
    refuses("holds no golden samples")


def test_scores_of_another_calibration_are_taken_over_by_a_person_only(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = line_with_samples(line_folder)
    file = line_folder / "brightness.calibration.yaml"
    other = {"local": (0.0, 0.2), "global": (0.0, 0.2)}
    write_calibration(file, read_calibration(file).model_copy(update={"quantiles": other, "threshold": 0.3}))
    picture = part_image(line_folder / "third.png", bright=False, size=32)
    assert "of another engine or calibration" in refused(
        capsys, "golden", "add", "--config", config, "--good", picture
    )
    assert in_process(["golden", "test", "--config", str(config)]) == 1  # the scores are half as high
    assert "moved by" in capsys.readouterr().out
    assert in_process(["golden", "test", "--accept", "--config", str(config)]) == 0
    assert in_process(["golden", "test", "--config", str(config)]) == 0
    calibrate(line_folder / "brightness.engine", file, 0.01)  # the good sample would be rejected
    assert "nothing is accepted" in refused(capsys, "golden", "test", "--accept", "--config", config)


@pytest.mark.slow
def test_samples_wait_for_a_pause_and_make_no_part_late(line_folder: Path) -> None:
    config = line_with_samples(line_folder, golden={"every_h": 0.0003}, deadline_ms=20_000)
    rewrite(config, lambda content: content["cameras"]["top"].update(fps=200))
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 600)
        line.stop()
    assert not {verdict.reason for verdict in line.verdicts} & {"deadline", "golden"}
    frames = sorted(verdict.frame for verdict in line.verdicts if verdict.camera == "top")
    assert frames == list(range(1, len(frames) + 1))
    assert [run["why"] for run in notes(line_folder, "golden")][:2] == ["start", "due"]


def test_a_part_from_before_it_was_announced_is_not_the_expected_one() -> None:
    expected = Expected("top", None, since="2026-11-22T19:28:32.000000Z")
    for second, camera, decision in ((31, "top", "reject"), (33, "side", "reject"), (33, "top", "pass")):
        stamp = f"2026-11-22T19:28:{second}.000000Z"
        expected.look(a_verdict(1, decision=decision, camera=camera, captured_at=stamp))
        assert not expected.decided.is_set()
    expected.look(a_verdict(2, decision="reject", captured_at="2026-11-22T19:28:34.000000Z"))
    assert expected.decided.is_set() and expected.rejected is not None
    assert expected.seen == {"pass": 1, "reject": 1}
