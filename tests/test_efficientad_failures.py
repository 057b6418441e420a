"""Trainings that go wrong: what is said, and what is kept."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_set_folders import draw_part

from models.commands import efficientad as main
from models.efficientad.checkpoint import load_model, progress_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    for index in range(6):
        draw_part(tmp_path / "good" / f"{index}.png", index)
    return tmp_path / "good"


def command(good: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(good), "--out", str(out), "--image-size", "128", *more]


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines on stderr that are no progress bar."""
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert not any("Traceback" in line for line in lines)
    return [line for line in lines if line and not re.search(r"\d+%\|", line)]


def test_a_loss_that_is_no_number_ends_the_training(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.pt"
    assert main(command(good, out, "--steps", "30", "--learning-rate", "1e30")) == 1
    last = said(capsys)[-1]
    assert re.match(rf"efficientad: {out}: the loss is (nan|inf) at step \d+; no state of it is kept", last)
    assert "try a --learning-rate below 1e+30" in last
    assert not out.exists()
    assert not progress_file(out).exists()


def test_a_spoilt_state_never_replaces_the_last_sound_one(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are spoilt after the checkpoint of step 4; the one of step 8 is not written."""
    from models.efficientad import train

    real = train.learn

    def learn(optimiser: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
        real(optimiser, loss, rate)
        if progress_file(out).exists():
            optimiser.param_groups[0]["params"][0].data[0, 0, 0, 0] = torch.nan

    out = tmp_path / "model.pt"
    settings = ("--steps", "20", "--checkpoint-every", "4")
    with monkeypatch.context() as patch:
        patch.setattr(train, "learn", learn)
        assert main(command(good, out, *settings)) == 1
    last = said(capsys)[-1]
    assert "at step 8;" in last
    assert f"the state of step 4 is kept in {progress_file(out)}" in last
    assert not out.exists()
    # It is sound: without the fault the same command goes on from it to the end.
    assert main(command(good, out, *settings)) == 0
    assert "resumed at step 4" in capsys.readouterr().out
    assert all(torch.isfinite(tensor).all() for tensor in load_model(out)[1].state_dict().values())


def test_a_disk_that_is_full_for_a_while_delays_checkpoints_only(
    good: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(good, tmp_path / "model.pt", "--steps", "1")) == 0
    capsys.readouterr()
    out = small_disk / "model.pt"
    # Room for the model, but not for a state with Adam's moments.
    room = (tmp_path / "model.pt").stat().st_size * 5 // 4
    (small_disk / "filler").write_bytes(bytes(32 * 2**20 - room))
    assert main(command(good, out, "--steps", "9", "--checkpoint-every", "3")) == 0
    warnings = [line for line in said(capsys) if line.startswith("warning: ")]
    assert len(warnings) == 2
    for line in warnings:
        assert f"{progress_file(out)}: cannot be written: No space left on device" in line
        assert "training goes on" in line
    assert load_model(out)[0].steps == 9
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "model.pt"]


def test_a_disk_that_is_full_at_the_end_loses_nothing_that_was_kept(
    good: Path, small_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.efficientad import train

    out = small_disk / "model.pt"
    filler = small_disk / "filler"
    real = train.validate

    def validate(*arguments: object, **more: object) -> object:
        """Fill the disk when the last step is done."""
        free = os.statvfs(small_disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
        return real(*arguments, **more)  # type: ignore[arg-type]

    settings = ("--steps", "9", "--checkpoint-every", "4")
    with monkeypatch.context() as patch:
        patch.setattr(train, "validate", validate)
        assert main(command(good, out, *settings)) == 1
    last = said(capsys)[-1]
    assert last == (
        f"efficientad: {out}: cannot be written: No space left on device; "
        f"the state of step 8 is kept in {progress_file(out)}"
    )
    filler.unlink()
    assert main(command(good, out, *settings)) == 0
    assert "resumed at step 8" in capsys.readouterr().out
    assert [path.name for path in small_disk.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_truncated_training_images_are_named(
    suffix: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(suffix, picture)[1].tobytes()
    cut = good / f"cut{suffix}"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert main(command(good, tmp_path / "model.pt", "--steps", "1")) == 2
    (line,) = [line for line in said(capsys) if line.startswith("efficientad: ")]
    assert line.startswith(f"efficientad: {cut}: is ")
    assert "cut short" in line or "damaged" in line
    assert not (tmp_path / "model.pt").exists()


def test_mixed_sizes_are_said(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_part(good / "wide.png", 6)
    cv2.imwrite(str(good / "wide.png"), cv2.resize(cv2.imread(str(good / "wide.png")), (90, 50)))
    assert main(command(good, tmp_path / "model.pt", "--steps", "1")) == 0
    expected = "images of 2 sizes, from 50×90 to 64×64 pixels: all are resized to 128×128"
    assert expected in said(capsys)
