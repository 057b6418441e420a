"""Small live pictures: only while somebody looks, few, and true to the verdict that they come with."""

import json
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from brightness import SIZE
from line_process import a_verdict
from line_rig import part_image, running, write_config
from patience import PATIENCE_S

from daemon.config import load_config
from daemon.delivery import preview as module
from daemon.delivery.preview import Preview
from daemon.judging.product import Product
from daemon.load import load_products
from pictures.frames import Frame

GREY: Frame = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)


@pytest.fixture
def product(line_folder: Path) -> Product:
    config = write_config(line_folder, {"top": {"source": "parts"}})
    return load_products(load_config(config), config)[None]


def leased(preview: Preview, folder: Path) -> None:
    """Look, and wait until the line has noticed."""
    (folder / "lease").touch()
    give_up = time.monotonic() + PATIENCE_S
    while not preview._leased:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def note(folder: Path, camera: str = "top") -> dict[str, Any]:
    """Wait for what is told of a picture; it comes after the picture."""
    give_up = time.monotonic() + PATIENCE_S
    while not (folder / f"{camera}.json").exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    said: dict[str, Any] = json.loads((folder / f"{camera}.json").read_bytes())
    return said


def comment(jpeg: bytes) -> dict[str, Any]:
    assert jpeg[:4] == b"\xff\xd8\xff\xfe"
    said: dict[str, Any] = json.loads(jpeg[6 : 4 + int.from_bytes(jpeg[4:6], "big")])
    return said


@pytest.mark.slow
def test_a_line_shows_its_cameras_while_somebody_looks(line_folder: Path) -> None:
    part_image(line_folder / "parts/0.png", bright=True, size=2 * SIZE)
    config = write_config(
        line_folder,
        {"top": {"source": "parts", "loop": True, "fps": 50}},
        preview={"folder": "run/preview"},
    )
    folder = line_folder / "run/preview"
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) >= 60)
        assert [path.name for path in folder.iterdir()] == ["lease"]
        assert stat.S_IMODE((folder / "lease").stat().st_mode) == 0o660
        (folder / "lease").touch()
        said = note(folder)
        line.until(lambda line: line.verdicts[-1].seq > said["seq"])
        (verdict,) = (verdict for verdict in line.verdicts if verdict.seq == said["seq"])
        assert said == {
            "schema": 1,
            "kind": "reject",
            "width": SIZE,
            "height": SIZE,
            **{
                key: getattr(verdict, key)
                for key in ("line", "camera", "frame", "part", "boot", "seq", "reason", "score", "threshold")
            },
            "captured_at": verdict.captured_at,
        }
        os.utime(folder / "lease", (time.time() - 6,) * 2)  # nobody has looked for 6 s
        line.until(lambda line: line.verdicts[-1].seq > said["seq"] + 75)
        last = (folder / "top.jpg").stat().st_mtime_ns
        line.until(lambda line: line.verdicts[-1].seq > said["seq"] + 130)
        assert (folder / "top.jpg").stat().st_mtime_ns == last
        picture = (folder / "top.jpg").read_bytes()
        assert comment(picture).items() >= {"schema": 1, "camera": "top", "kind": "reject"}.items()
        shown = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert shown.shape == (SIZE, SIZE, 3)
        assert shown[SIZE // 2 + 4, SIZE // 2 + 4].min() > 200 and shown[4, 4].max() < 60
        line.stop()
    assert {path.name for path in folder.iterdir()} == {"lease", "top.jpg", "top.json"}


def test_a_camera_is_shown_twice_a_second_at_the_most(tmp_path: Path, product: Product) -> None:
    preview = Preview(tmp_path)
    leased(preview, tmp_path)
    shown: dict[str, list[int]] = {"top": [], "side": []}
    began = time.monotonic()
    for seq in range(1, 10_000):
        for camera, seqs in shown.items():
            before = preview._next_s.get(camera)
            preview.offer(GREY, product, replace(a_verdict(seq), camera=camera))
            if preview._next_s.get(camera) != before:
                seqs.append(seq)
    lasted_s = time.monotonic() - began
    preview.close()
    for seqs in shown.values():
        assert 1 <= len(seqs) <= 1 + lasted_s / 0.5


def test_a_sandbox_that_forbids_priorities_forbids_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError("as seccomp does")

    monkeypatch.setattr(os, "setpriority", refuse)
    preview = Preview(tmp_path)
    leased(preview, tmp_path)
    preview.close()


def test_nothing_is_copied_while_nobody_looks(tmp_path: Path, product: Product) -> None:
    preview = Preview(tmp_path)
    os.utime(tmp_path / "lease", (time.time() + 60,) * 2)  # the clock was set back since
    time.sleep(0.05)
    preview.offer(GREY, product, a_verdict(1))
    assert preview._queue.empty() and not preview._next_s
    preview.close()


@pytest.mark.parametrize(("height", "width"), [(1000, 3000), (3000, 1000), (480, 480), (1, 2000)])
def test_large_pictures_are_made_small(tmp_path: Path, product: Product, height: int, width: int) -> None:
    preview = Preview(tmp_path)
    leased(preview, tmp_path)
    preview.offer(np.full((height, width, 3), 90, np.uint8), product, a_verdict(1))
    said = note(tmp_path, "top")
    preview.close()
    shown = cv2.imread(str(tmp_path / "top.jpg"))
    assert shown.shape[:2] == (said["height"], said["width"])
    assert max(shown.shape) <= 480
    assert abs(said["width"] * height - said["height"] * width) <= max(height, width) * 2
    assert abs(int(shown.mean()) - 90) <= 1


def test_a_folder_that_vanishes_is_told_once_and_pictures_come_again(
    tmp_path: Path, product: Product, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_INTERVAL_S", 0.0)
    preview = Preview(tmp_path / "preview")
    leased(preview, tmp_path / "preview")
    (tmp_path / "preview").rename(tmp_path / "gone")
    for seq in range(1, 4):
        preview.offer(GREY, product, a_verdict(seq))
        while not preview._queue.empty():
            time.sleep(0.01)
    (tmp_path / "gone").rename(tmp_path / "preview")
    leased(preview, tmp_path / "preview")
    preview.offer(GREY, product, a_verdict(9))
    assert note(tmp_path / "preview")["seq"] == 9
    preview.close()
    assert caplog.text.count(f"preview: {tmp_path / 'preview'} cannot be written: ") == 1
