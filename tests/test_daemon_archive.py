"""Pictures of rejects: kept within the space they may take, whatever else happens in their folder."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from brightness import SIZE
from line_rig import write_config
from patience import PATIENCE_S

from daemon.config import load_config
from daemon.delivery import archive as module
from daemon.delivery.archive import Archive
from daemon.judging.product import Product
from daemon.load import load_products
from pictures.frames import Frame

NOISE: Frame = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
"""About 20 kB with its overlay."""


@pytest.fixture
def product(line_folder: Path) -> Product:
    config = write_config(line_folder, {"top": {"source": "parts"}})
    return load_products(load_config(config), config)[None]


def keep(archive: Archive, product: Product, *names: str) -> None:
    anomaly_map = np.ones((product.geometry.map.height, product.geometry.map.width), np.float32)
    for name in names:
        while archive.keep(name, NOISE, anomaly_map, product) is None:
            pass  # as many wait as may


def test_the_oldest_go_and_those_of_earlier_starts_go_first(tmp_path: Path, product: Product) -> None:
    for start in range(3):
        archive = Archive(tmp_path / "rejects", max_mb=1)
        keep(archive, product, *(f"{start}-{index:03d}" for index in range(30)))
        archive.close()
    kept = sorted(path.name for path in (tmp_path / "rejects").iterdir())
    assert kept[-2:] == ["2-029.overlay.jpg", "2-029.png"]
    assert not any(name.startswith("0-00") for name in kept)
    assert 900_000 < sum(path.stat().st_size for path in (tmp_path / "rejects").iterdir()) <= 1_000_000


def test_new_pictures_are_kept_after_somebody_has_taken_the_others_away(
    tmp_path: Path, product: Product
) -> None:
    folder = tmp_path / "rejects"
    archive = Archive(folder, max_mb=1)
    keep(archive, product, *(f"old-{index:03d}" for index in range(100)))
    archive.close()
    archive = Archive(folder, max_mb=1)
    for path in folder.iterdir():
        path.unlink()
    names = [f"new-{index:03d}" for index in range(20)]
    keep(archive, product, *names)
    archive.close()
    assert sorted(path.stem for path in folder.glob("*.png")) == names


def keep_passes(archive: Archive, product: Product, *names: str) -> None:
    anomaly_map = np.ones((product.geometry.map.height, product.geometry.map.width), np.float32)
    for name in names:
        while archive.keep_pass(name, NOISE, anomaly_map, product) is None:
            pass


@pytest.mark.slow
def test_passes_do_not_drive_rejects_out(tmp_path: Path, product: Product) -> None:
    folder = tmp_path / "rejects"
    for start in range(2):
        archive = Archive(folder, max_mb=1, sample=0.5)
        keep(archive, product, *(f"{start}-reject-{index:03d}" for index in range(10)))
        keep_passes(archive, product, *(f"{start}-{index:03d}" for index in range(40)))
        archive.close()
    passes = sorted(path.name for path in folder.glob("*-pass.png"))
    assert passes[-1] == "1-039-pass.png"
    assert not any(name.startswith("0-") for name in passes)
    assert 200_000 < sum(path.stat().st_size for path in folder.glob("*-pass.*")) <= 250_000
    assert len([*folder.glob("*-reject-*.png")]) == 20
    archive = Archive(folder, max_mb=1)  # passes are not wanted any more
    keep(archive, product, *(f"2-reject-{index:03d}" for index in range(80)))
    archive.close()
    assert not [*folder.glob("*-pass.*")]


def hanging_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have no file synced until this is set."""
    answers, sync = threading.Event(), os.fsync

    def answered(file: int) -> None:
        answers.wait(PATIENCE_S)
        sync(file)

    monkeypatch.setattr(os, "fsync", answered)
    return answers


def test_rejects_come_first_while_many_pictures_wait(
    tmp_path: Path, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_CLOSE_S", 0.1)
    archive = Archive(tmp_path / "rejects", max_mb=1, near_misses=0.1)
    answers = hanging_disk(monkeypatch)
    keep(archive, product, "0")
    anomaly_map = np.ones((product.geometry.map.height, product.geometry.map.width), np.float32)
    passes = [archive.keep_pass(f"{n}", NOISE, anomaly_map, product) for n in range(1, 40)]
    assert passes[0] is not None and passes[-1] is None
    assert archive.keep("reject", NOISE, anomaly_map, product) is not None
    answers.set()
    archive.close()


def test_what_a_dead_process_left_half_written_goes_at_the_start(tmp_path: Path) -> None:
    left = [tmp_path / f".1.{kind}.ab_c12xy" for kind in ("png", "overlay.jpg")]
    kept = [tmp_path / name for name in ("1.png", "1.overlay.jpg", ".1.png.mine")]
    for path in (*left, *kept):
        path.touch()
    Archive(tmp_path, max_mb=1).close()
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_which_passes_are_kept(tmp_path: Path) -> None:
    nothing = Archive(tmp_path, max_mb=1)
    near = Archive(tmp_path, max_mb=1, near_misses=0.1)
    some = Archive(tmp_path, max_mb=1, sample=0.25)
    assert not nothing.wants_pass(0.5, 0.5)
    assert [near.wants_pass(score, 0.5) for score in (0.44, 0.46, 0.5)] == [False, True, True]
    assert [near.wants_pass(score, -0.5) for score in (-0.56, -0.54)] == [False, True]
    assert 150 < sum(some.wants_pass(0.1, 0.5) for _ in range(1000)) < 350
    for archive in (nothing, near, some):
        archive.close()


def test_a_disk_that_hangs_does_not_keep_the_line_from_ending(
    tmp_path: Path, product: Product, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LONGEST_CLOSE_S", 0.1)
    archive = Archive(tmp_path / "rejects", max_mb=1)
    answers = hanging_disk(monkeypatch)
    keep(archive, product, *(str(number) for number in range(1, 30)))
    archive.close()
    assert f"archive: {tmp_path / 'rejects'} hangs" in caplog.text
    assert not list((tmp_path / "rejects").glob("[!.]*")), "a picture has its name before it is whole"
    answers.set()
    archive.close()


def test_a_picture_that_cannot_be_drawn_keeps_no_other_back(
    tmp_path: Path, product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    archive = Archive(tmp_path / "rejects", max_mb=1)
    archive.keep("broken", NOISE, np.ones((0, 7), np.float32), product)
    keep(archive, product, "sound")
    archive.close()
    assert "broken.overlay.jpg cannot be written: " in caplog.text
    assert (tmp_path / "rejects" / "sound.overlay.jpg").is_file()
