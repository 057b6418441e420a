"""Large pictures through the whole daemon: cut into tiles, judged, merged, and shown as one picture again."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from brightness import CELL, SIZE
from camera_rig import CameraRig, supervise
from line_rig import running, write_config
from test_daemon_line import every_frame_has_one_verdict, one_line
from test_daemon_reload import inspectctl

from daemon.config import load_config
from daemon.delivery.archive import Archive
from daemon.load import load_products
from engine_runtime.engine_file import read_manifest
from foundation.errors import InputError
from pictures.frames import Frame, Roi
from pictures.tiles import Tiles

ROI = {"x": 40, "y": 24, "width": 560, "height": 464}
TILES = {"size": 128, "overlap": 32}
"""Twice the engine's input, and a step of 96: tiles begin at 0, 96, … 384 and 432 across, 336 down."""
CAMERA = {"source": "parts", "roi": ROI, "tiles": TILES}
CELL_PIXELS = 2 * CELL
GOOD = 40


def recalibrated(
    folder: Path,
    tiles: dict[str, int] | None,
    roi: dict[str, int] | None = None,
    tiled_size: list[int] | None = None,
) -> None:
    """Change what the calibration was made with."""
    path = folder / "brightness.calibration.yaml"
    content = yaml.safe_load(path.read_text())
    content |= {"tiles": tiles, "tiled_size": tiled_size}
    content["roi"] = None if roi is None else list(roi.values())
    path.write_text(yaml.safe_dump(content))


@pytest.fixture
def tiled_folder(line_folder: Path) -> Path:
    recalibrated(line_folder, TILES, ROI)
    return line_folder


def picture(*, defect: tuple[int, int] | None = None, side: int = CELL_PIXELS) -> Frame:
    """Draw a large part; a defect is a white square whose corner in the region of interest is given."""
    drawn = np.full((512, 640, 3), GOOD, np.uint8)
    if defect is not None:
        x, y = ROI["x"] + defect[0], ROI["y"] + defect[1]
        drawn[y : y + side, x : x + side] = 255
    return drawn


def parts(folder: Path, *pictures: Frame) -> None:
    (folder / "parts").mkdir()
    for index, drawn in enumerate(pictures):
        cv2.imwrite(str(folder / f"parts/{index:02d}.png"), drawn)


def test_a_defect_is_found_where_it_is_on_tiles_edges_and_seams_too(tiled_folder: Path) -> None:
    defects = [
        (0, 0),  # the corner of the first tile
        (48, 160),  # inside one tile
        (96, 96),  # on the first pixels of a tile that overlaps three others
        (112, 208),  # within the overlap of two
        (80, 192),  # up to the edge of a tile
        (544, 448),  # the region's last pixels
        (400, 320),  # where the last tile was moved inwards
    ]
    parts(tiled_folder, picture(), *[picture(defect=corner) for corner in defects], picture())
    with running(write_config(tiled_folder, {"top": CAMERA}, deadline_ms=10_000)) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    every_frame_has_one_verdict(line)
    verdicts = sorted(line.verdicts, key=lambda verdict: verdict.frame)
    for index in (0, -1):
        assert verdicts[index].decision == "pass"
        assert verdicts[index].score == pytest.approx(GOOD / 255, abs=1e-5)
    for verdict, (x, y) in zip(verdicts[1:-1], defects, strict=True):
        assert verdict.decision == "reject"
        # Each lies on a cell of the tiles around it, so no weight can dim it.
        assert verdict.score == pytest.approx(1.0, abs=1e-4)
        assert verdict.peak is not None
        assert 0 <= verdict.peak.x - ROI["x"] - x < CELL_PIXELS
        assert 0 <= verdict.peak.y - ROI["y"] - y < CELL_PIXELS


def test_tiles_that_lie_between_the_cells_lose_no_defect(line_folder: Path) -> None:
    """Steps that are no whole number of cells, and a scale that is no whole number either."""
    tiles = {"size": 150, "overlap": 37}
    recalibrated(line_folder, tiles)
    corners = [(x, y) for x in (1, 111, 300, 518) for y in (2, 115, 422)]
    parts(line_folder, *[picture(defect=corner, side=40) for corner in corners])
    camera = CAMERA | {"tiles": tiles}
    with running(write_config(line_folder, {"top": camera}, deadline_ms=10_000)) as line:
        line.until_end()
    verdicts = sorted(line.verdicts, key=lambda verdict: verdict.frame)
    assert len(verdicts) == len(corners)
    for verdict, (x, y) in zip(verdicts, corners, strict=True):
        assert verdict.decision == "reject"
        assert verdict.peak is not None
        assert 0 <= verdict.peak.x - ROI["x"] - x < 40
        assert 0 <= verdict.peak.y - ROI["y"] - y < 40


def test_the_archive_shows_the_whole_picture_with_the_heat_on_the_defect(tiled_folder: Path) -> None:
    x, y = 208, 304
    parts(tiled_folder, picture(defect=(x, y), side=48))
    config = write_config(tiled_folder, {"top": CAMERA}, archive={"folder": "rejects"}, deadline_ms=10_000)
    with running(config) as line:
        line.until_end()
    overlay_file = Path(line.verdicts[0].archive or "")
    overlay = cv2.imread(str(overlay_file))
    frame = cv2.imread(str(overlay_file).replace(".overlay.jpg", ".png"))
    assert overlay is not None and frame is not None
    # In the engine's scale: two camera pixels each.
    expected = picture(defect=(x, y), side=48)[24:488:2, 40:600:2]
    np.testing.assert_array_equal(frame, expected)
    assert overlay.shape == frame.shape
    changed = np.abs(overlay.astype(int) - frame).max(axis=2) > 30
    assert changed.any()
    rows, columns = np.nonzero(changed)
    cell = CELL
    assert y / 2 - 2 * cell <= rows.min() <= y / 2 + cell
    assert (y + 48) / 2 - cell <= rows.max() <= (y + 48) / 2 + 2 * cell
    assert x / 2 - 2 * cell <= columns.min() <= x / 2 + cell
    assert (x + 48) / 2 - cell <= columns.max() <= (x + 48) / 2 + 2 * cell


def test_rejects_that_wait_for_the_disk_take_no_more_memory_than_allowed(
    line_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.delivery.archive._MOST_WAITING_BYTES", 20_000_000)
    tiles, region = {"size": 500, "overlap": 0}, {"x": 0, "y": 0, "width": 2000, "height": 2000}
    recalibrated(line_folder, tiles)
    camera = {"source": "parts", "roi": region, "tiles": tiles}
    config = write_config(line_folder, {"top": camera})
    [product] = load_products(load_config(config), config).values()
    noise = np.random.default_rng(0).integers(0, 256, (16, 500, 500, 3), dtype=np.uint8)  # 12 megabytes
    anomaly_map = np.zeros(product.geometry.map, np.float32)
    archive = Archive(line_folder / "rejects", max_mb=1000)
    kept = [archive.keep(f"{index}", noise, anomaly_map, product) for index in range(8)]
    archive.close()
    # One is being written and two wait; to write one takes longer than to hand over all.
    accepted = [path for path in kept if path is not None]
    assert 1 <= len(accepted) < 8
    assert kept[0] is not None and kept[-1] is None
    assert all(path.exists() for path in accepted)


def test_a_line_changes_over_to_other_tiles_and_loses_no_frame(tiled_folder: Path) -> None:
    parts(tiled_folder, picture(defect=(300, 300)))
    config = write_config(
        tiled_folder,
        {"top": CAMERA | {"loop": True}},  # each picture waits until there is room for it
        journal={"file": "line3.journal"},
        control=f"ipc://{tiled_folder}/control",
        deadline_ms=20_000,
    )
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 4)
        roi = {"x": 40, "y": 24, "width": 200, "height": 180}  # without the defect
        recalibrated(tiled_folder, {"size": 64, "overlap": 8}, roi)
        content = yaml.safe_load(config.read_text())
        content["cameras"]["top"] |= {"roi": roi, "tiles": {"size": 64, "overlap": 8}}
        config.write_text(yaml.safe_dump(content))
        done = inspectctl("reload", "--config", config)
        assert done.returncode == 0, done.stderr
        line.until(lambda line: line.verdicts[-1].decision == "pass")
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 10)
        line.stop()
    every_frame_has_one_verdict(line)
    decisions = [verdict.decision for verdict in sorted(line.verdicts, key=lambda verdict: verdict.frame)]
    change = decisions.index("pass")
    assert decisions == ["reject"] * change + ["pass"] * (len(decisions) - change)


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({"tiles": {"size": 128, "overlap": 65}}, "cameras.top.tiles: found overlap 65, expected 0 to 64"),
        ({"tiles": {"size": 15, "overlap": 0}}, "cameras.top.tiles: found size 15, expected at least 16"),
        ({"tiles": {"size": 128}}, "cameras.top.tiles.overlap: missing"),
        ({"tiles": TILES | {"overlp": 8}}, "cameras.top.tiles.overlp: unknown key; did you mean overlap?"),
        ({"tiles": {"size": "big", "overlap": 8}}, "cameras.top.tiles.size: found 'big', expected"),
        ({"tiles": "128,32"}, "cameras.top.tiles: found '128,32', expected"),
        ({"roi": None}, "cameras.top: tiles: found no roi beside it, expected one"),
        ({"tiles": {"size": 500, "overlap": 8}}, "a roi of 560×464 pixels is smaller than a tile of 500"),
        (
            {"roi": {"x": 0, "y": 0, "width": 65_000, "height": 65_000}},
            "expected at most 4096: give larger tiles",
        ),
    ],
)
def test_tiles_that_make_no_sense_are_refused(tmp_path: Path, camera: dict[str, Any], expected: str) -> None:
    settings = {key: value for key, value in (CAMERA | camera).items() if value is not None}
    config = write_config(tmp_path, {"top": settings})
    with pytest.raises(InputError) as raised:
        load_config(config)
    assert expected in str(raised.value)
    assert re.match(rf"{config}:\d+: ", str(raised.value))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({"tiles": {"size": 128, "overlap": 16}}, "cameras.top.tiles: found 128,16, expected 128,32, with"),
        ({"tiles": None}, "cameras.top.tiles: found none, expected 128,32, with"),
        ({"roi": ROI | {"x": 41}}, "cameras.top.roi: found 560×464+41+24, expected 560×464+40+24"),
        ({"roi": None}, "cameras.top: tiles: found no roi beside it"),
    ],
)
def test_tiles_of_another_calibration_are_refused(
    tiled_folder: Path, camera: dict[str, Any], expected: str
) -> None:
    parts(tiled_folder, picture())
    settings = {key: value for key, value in (CAMERA | camera).items() if value is not None}
    said = one_line(write_config(tiled_folder, {"top": settings}), "--check")
    assert expected in said
    assert "line3.yaml" in said


def test_a_calibration_without_tiles_is_refused_for_a_camera_with_them(line_folder: Path) -> None:
    parts(line_folder, picture())
    said = one_line(write_config(line_folder, {"top": CAMERA}), "--check")
    assert "cameras.top.tiles: found 128,32, expected none, with which" in said


def test_a_calibration_of_a_region_of_another_size_is_refused(line_folder: Path) -> None:
    parts(line_folder, picture())
    recalibrated(line_folder, TILES, tiled_size=[464, 560])
    config = write_config(line_folder, {"top": CAMERA})
    assert load_products(load_config(config), config)
    recalibrated(line_folder, TILES, tiled_size=[464, 600])
    said = one_line(config, "--check")
    assert "cameras.top.roi: found 560×464+40+24, expected one of 600×464 pixels, with which" in said


@pytest.mark.parametrize("side", [{"tiles": {"size": 64, "overlap": 0}}, {"roi": ROI | {"width": 500}}, None])
def test_cameras_whose_tiles_differ_are_refused(line_folder: Path, side: dict[str, Any] | None) -> None:
    recalibrated(line_folder, TILES)
    parts(line_folder, picture())
    other = {"source": "parts"} if side is None else CAMERA | side
    said = one_line(write_config(line_folder, {"top": CAMERA, "side": other}), "--check")
    assert "line3.yaml:6: cameras: found" in said
    assert "for side, tiles 128,32 of a roi of 560×464 for top" in said


def test_cameras_may_look_at_regions_of_one_size_in_different_places(line_folder: Path) -> None:
    recalibrated(line_folder, TILES)
    parts(line_folder, picture(defect=(200, 200), side=60))
    shifted = CAMERA | {"roi": ROI | {"x": 80, "y": 0}}
    config = write_config(line_folder, {"top": CAMERA, "side": shifted}, deadline_ms=10_000)
    with running(config) as line:
        line.until_end()
    assert sorted(verdict.camera for verdict in line.verdicts) == ["side", "top"]
    for verdict in line.verdicts:
        assert verdict.decision == "reject"
        assert verdict.peak is not None
        assert 240 <= verdict.peak.x < 300
        assert 224 <= verdict.peak.y < 284


def test_memory_for_tiles_that_cannot_be_had_is_said_in_one_line(line_folder: Path) -> None:
    tiles = {"size": 16, "overlap": 0}
    recalibrated(line_folder, tiles)
    camera = {"source": "parts", "roi": {"x": 0, "y": 0, "width": 1024, "height": 1024}, "tiles": tiles}
    parts(line_folder, picture())
    said = one_line(write_config(line_folder, {"top": camera | {"waiting": 1024}}))
    slots = 1024 + 1 + 1
    megabytes = round(slots * 64 * 64 * SIZE * SIZE * 3 / 1e6)
    assert f"cameras.top.waiting: found 1024; its frames need {megabytes} MB of shared memory" in said


BELT = "simulated://?width=64&height=64&cached=4"
TILED: dict[str, Any] = {"roi": Roi(0, 0, 64, 64), "tiles": Tiles(32, 8)}


def test_black_pictures_are_found_with_tiles() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", **TILED, source=f"{BELT}&trouble=black@6&parts=20", black_below=5)
        await rig.until(lambda: camera.state == "ended")

    rig = supervise(story)
    errors = {arrival.frame: arrival.error for arrival in rig.arrivals["top"] if arrival.error}
    assert sorted(errors) == list(range(6, 16))
    assert set(errors.values()) == {"black: its mean grey level 0.0 is below 5"}


def test_a_frozen_camera_is_found_with_tiles() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start(
            "top", **TILED, source=f"{BELT}&parts=40&trouble=frozen@20", fps=100, frozen_after=4
        )
        await rig.until(lambda: camera.state == "ended")

    rig = supervise(story)
    assert set(rig.errors("top")) == {"frozen: the same picture 4 times"}
    assert rig.cameras["top"].slots[0].shape == (9, 64, 64, 3)


def test_as_many_pictures_are_judged_at_once_as_fill_the_engines_batch(tiled_folder: Path) -> None:
    parts(tiled_folder, picture())
    most = read_manifest(tiled_folder / "brightness.engine").max_batch
    for roi, expected in (({"width": 128, "height": 224}, most // 2), (ROI, 1)):
        recalibrated(tiled_folder, TILES)
        config = write_config(tiled_folder, {"top": CAMERA | {"roi": {"x": 0, "y": 0} | roi}})
        [product] = load_products(load_config(config), config).values()
        assert product.max_batch == expected
        engine = product.open()
        assert engine.manifest.max_batch == expected
        engine.close()
