"""Pictures of rejects: kept within the space they may take, whatever else happens in their folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from brightness import SIZE
from line_rig import write_config

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


def test_a_disk_that_hangs_does_not_keep_the_line_from_ending(
    tmp_path: Path, product: Product, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LONGEST_CLOSE_S", 0.1)
    archive = Archive(tmp_path / "rejects", max_mb=1)
    hanging = tmp_path / "rejects" / "1.png"
    os.mkfifo(hanging)  # whoever opens it to write waits until somebody reads
    keep(archive, product, *(str(number) for number in range(1, 30)))
    archive.close()
    assert f"archive: {tmp_path / 'rejects'} hangs" in caplog.text
    with hanging.open("rb") as reading:
        assert reading.read().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_keeps_no_other_back(
    tmp_path: Path, product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    archive = Archive(tmp_path / "rejects", max_mb=1)
    archive.keep("broken", NOISE, np.ones((0, 7), np.float32), product)
    keep(archive, product, "sound")
    archive.close()
    assert "broken.overlay.jpg cannot be written: " in caplog.text
    assert (tmp_path / "rejects" / "sound.overlay.jpg").is_file()
