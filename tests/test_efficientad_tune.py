"""The search for settings: what a study keeps, goes on with and refuses."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_set_folders import draw_part, mvtec_ad
from hypothesis import given, settings
from hypothesis import strategies as st

from models.commands import efficientad as main
from models.efficientad.checkpoint import load_model
from models.synthetic_defects import FAINTEST, with_defect

pytest.importorskip("optuna", reason="tune needs Optuna: pip install 'inspectd[tune]'")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = mvtec_ad(tmp_path_factory.mktemp("tune") / "part")
    for index in range(6, 20):
        draw_part(root / "train" / "good" / f"{index:03}.png", index)
    return root


def command(data: Path, out: Path, trials: int, *more: str, steps: int = 3) -> list[str]:
    return [
        *("tune", "--data", str(data), "--out", str(out), "--trials", str(trials)),
        *("--steps", str(steps), "--image-sizes", "128", "144", *more),
    ]


def test_a_study_finds_settings_and_keeps_the_best_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main(command(data, out, 3)) == 0
    table = json.loads((out / "tune.json").read_text())
    assert [row["trial"] for row in table["trials"]] == list(range(3))
    scores = [row["score"] for row in table["trials"] if row["score"] is not None]
    assert table["best"]["score"] == max(scores)
    assert all(
        1 <= row["steps"] <= 3 and row["image_size"] in ([128, 128], [144, 144]) for row in table["trials"]
    )
    assert len({row["learning_rate"] for row in table["trials"]}) == 3
    run, _ = load_model(out / "best.pt")
    assert (run.steps, list(run.image_size)) == (table["best"]["steps"], table["best"]["image_size"])
    assert sorted(file.name for file in out.iterdir()) == ["best.pt", "study.db", "tune.json", "tune.md"]
    printed = capsys.readouterr().out
    assert printed.startswith((out / "tune.md").read_text())

    # The line that it prints trains the same model again.
    [again] = re.findall(r"^  efficientad (train .*)$", printed, re.M)
    assert main([*again.replace("model.pt", str(tmp_path / "again.pt")).split()]) == 0
    repeated = load_model(tmp_path / "again.pt")[0]
    assert (repeated.size, repeated.steps, repeated.image_size) == (run.size, run.steps, run.image_size)
    assert repeated.learning_rate == pytest.approx(run.learning_rate, rel=0.01)


def test_a_study_goes_on_with_more_trials_and_no_other_study_in_its_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, 1)) == 0
    first = json.loads((tmp_path / "tune.json").read_text())["trials"]
    capsys.readouterr()
    assert main(command(data, tmp_path, 1, "--seed", "7")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("efficientad: ")]
    assert f"{tmp_path}/study.db: belongs to a study with seed 0, this one has 7" in line

    assert main(command(data, tmp_path, 2)) == 0
    trials = json.loads((tmp_path / "tune.json").read_text())["trials"]
    assert len(trials) == 2
    assert trials[:1] == first
    capsys.readouterr()

    (tmp_path / "study.db").write_text("no study\n")
    assert main(command(data, tmp_path, 1)) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("efficientad: ")]
    assert line.endswith("study.db: is not a study of 'efficientad tune', or damaged")


def test_a_killed_study_takes_its_trial_up_where_it_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.tune.SILENT_S", 4)
    efficientad = Path(sys.executable).parent / "efficientad"
    arguments = command(data, tmp_path, 1, steps=48)
    killed = subprocess.Popen([efficientad, *arguments], stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    try:
        partial = tmp_path / "trial-0.pt.partial"
        for line in iter(lambda: killed.stderr.read(80), ""):  # type: ignore[union-attr]
            if partial.exists():
                break
            assert killed.poll() is None, line
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stderr.close()
    assert partial.exists()
    kept = partial.stat().st_mtime_ns
    assert main(arguments) == 0
    [row] = json.loads((tmp_path / "tune.json").read_text())["trials"]
    assert row["trial"] == 1, "the killed one failed, and the one that took it up is another"
    assert not partial.exists()
    assert kept < (tmp_path / "best.pt").stat().st_mtime_ns


def test_two_processes_work_on_one_study(data: Path, tmp_path: Path) -> None:
    efficientad = Path(sys.executable).parent / "efficientad"
    arguments = command(data, tmp_path, 2, steps=3)
    both = [subprocess.Popen([efficientad, *arguments], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    trials = json.loads((tmp_path / "tune.json").read_text())["trials"]
    assert len(trials) in (2, 3), "both may take the last one"
    assert len({row["learning_rate"] for row in trials}) == len(trials), "they must not try the same"
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["best.pt", "study.db", "tune.json", "tune.md"]


def test_a_study_whose_trials_all_diverge_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.tune.LEARNING_RATE", dict.fromkeys(("xs", "s", "m"), 1e30))
    assert main(command(data, tmp_path, 2, steps=20)) == 1
    said = capsys.readouterr()
    [line] = [line for line in said.err.splitlines() if line.startswith("efficientad: ")]
    assert line.startswith(f"efficientad: {tmp_path}: none of 2 trials gave a model, the last for: ")
    assert "best.pt" not in said.out
    assert json.loads((tmp_path / "tune.json").read_text())["best"] is None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--teacher", "s"), "'s': expected SIZE=FILE"),
        (("--sizes", "l"), "invalid choice: 'l'"),
        (("--time-limit", "0"), "expected a number above 0"),
    ],
)
def test_a_wrong_option_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(command(data, tmp_path, 1, *more))
    assert refused.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_teacher_of_a_size_that_is_not_tried_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, tmp_path, 1, "--teacher", "s=teacher.safetensors")) == 2
    assert capsys.readouterr().err == "efficientad: --teacher s=…: that size is not among --sizes\n"


def test_a_time_limit_ends_the_study(data: Path, tmp_path: Path) -> None:
    assert main(command(data, tmp_path, 10_000, "--time-limit", "0.02")) == 0
    assert 1 <= len(json.loads((tmp_path / "tune.json").read_text())["trials"]) < 10_000


@given(st.integers(0, 2**32), st.integers(32, 90), st.integers(32, 90), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_painted_defect_is_there_and_is_small(seed: int, height: int, width: int, grey: int) -> None:
    random = np.random.default_rng(seed)
    picture = np.full((height, width, 3), grey, dtype=np.uint8)
    before = picture.copy()
    changed = with_defect(picture, random)
    assert (picture == before).all(), "the picture itself must stay"
    assert changed.shape == picture.shape
    assert changed.dtype == np.uint8
    difference = np.abs(changed.astype(int) - picture)
    assert difference.max() >= FAINTEST / 2
    assert (difference.max(axis=2) > 1).mean() < 0.2


@pytest.mark.slow
def test_machines_share_a_study_by_a_database(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is killed in its trial; another, with a folder of its own, takes it up."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'inspectd[fleet]'")
    from fleet_rig import POSTGRES, PostgresServer

    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    first, second = (tmp_path / name / "study" for name in ("first", "second"))
    for folder in (first, second):
        folder.parent.mkdir()
    server = PostgresServer()
    try:
        storage = ("--storage", server.address)
        efficientad = Path(sys.executable).parent / "efficientad"
        killed = subprocess.Popen(
            [efficientad, *command(data, first, 1, *storage, steps=24)], stderr=subprocess.DEVNULL
        )
        while not (first / "trial-0.pt.partial").exists():
            assert killed.poll() is None
            time.sleep(0.02)
        killed.kill()
        killed.wait()
        monkeypatch.setattr("models.tune.SILENT_S", 2)
        assert main(command(data, second, 1, *storage, steps=24)) == 0
        assert "the best model of all is best.pt on " in capsys.readouterr().out
        trials = json.loads((second / "tune.json").read_text())["trials"]
        assert [row["trial"] for row in trials] == [1]
        assert sorted(file.name for file in second.iterdir()) == ["best.pt", "tune.json", "tune.md"]
        assert main(command(data, second, 1, *storage, steps=4)) == 2
        assert "belongs to a study with most_steps 24" in capsys.readouterr().err
        server.kill()
        assert main(command(data, second, 2, *storage, steps=24)) == 1
        [line] = capsys.readouterr().err.strip().splitlines()[-1:]
        assert "connection failed" in line and "the same command goes on" in line
    finally:
        server.close()


def test_a_wrong_database_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for address, words in (
        ("mysql://x/y", "expected postgresql://USER@HOST/DATABASE"),
        ("postgresql://u:secret@h/d", "expected no password in the address"),
    ):
        with pytest.raises(SystemExit):
            main(command(data, tmp_path, 1, "--storage", address))
        assert words in capsys.readouterr().err
