"""Where a mask does not look, nothing counts: in calibrate, in the evaluation and on the line."""

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from brightness import SIZE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from line_rig import COMMANDS, part_image, running, write_config

from calibration.calibrate import calibrate
from calibration.calibration_file import load_calibration, write_calibration
from engine_runtime.engine_file import read_manifest
from foundation.errors import InputError
from models.datasets.data_set import Sample
from models.evaluation.evaluate import judge_samples
from models.evaluation.judge import open_judge
from pictures.frames import Frame, Roi, Size
from pictures.heatmap import MapGeometry
from pictures.image_file import read_image
from pictures.mask import Mask, MaskCells, Region, read_mask, weigh
from pictures.suggest_mask import suggest

SQUARE = Size(SIZE, SIZE)
GEOMETRY = MapGeometry(SQUARE, Size(8, 8), (8.0, 8.0))
RIGHT = [[32, 0], [64, 0], [64, 64], [32, 64]]


def mask_file(path: Path, *regions: dict[str, Any], size: Size = SQUARE) -> Path:
    content = {
        "format_version": 1,
        "picture": {"width": size.width, "height": size.height},
        "regions": regions or [{"name": "right", "polygon": RIGHT}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def command(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [COMMANDS / str(arguments[0]), *map(str, arguments[1:])], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if code == 0:
        return done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(str(arguments[0]))]
    return line


@given(
    arrays.arrays(np.float32, (3, 5, 4), elements=st.floats(-10, 10, width=32)),
    arrays.arrays(np.float32, (5, 4), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
)
def test_scores_are_the_largest_weighted_values_that_are_looked_at(
    maps: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]
) -> None:
    weights[2, 1] = 1
    scores, shown = weigh(maps, weights)
    for row in range(3):
        values = [maps[row, y, x] * weights[y, x] for y, x in np.argwhere(weights > 0)]
        assert scores[row] == max(values)
        assert shown[row].max() == scores[row] and shown[row].min() == min(values)
        assert (shown[row][weights == 0] == min(values)).all()


def test_a_mask_is_the_same_however_it_was_drawn(tmp_path: Path) -> None:
    drawn = read_mask(mask_file(tmp_path / "a.yaml"))
    white = np.zeros(SQUARE, np.uint8)
    white[:, 32:] = 255
    cv2.imwrite(str(tmp_path / "b.png"), white)
    assert drawn.digest == read_mask(tmp_path / "b.png").digest
    again = mask_file(tmp_path / "c.yaml", {"name": "other", "polygon": RIGHT, "weight": 1.0})
    assert drawn.digest == read_mask(again).digest
    seal = {"name": "seal", "polygon": [[32, 0], [40, 0], [40, 8], [32, 8]]}
    digests = {
        read_mask(mask_file(tmp_path / "d.yaml", {"name": "right", "polygon": RIGHT}, seal | own)).digest
        for own in ({"weight": 2}, {"threshold": 0.3}, {"weight": 0}, {})
    }
    assert len(digests) == 4 and drawn.digest in digests


def test_cells_follow_the_region_and_thresholds_the_calibration() -> None:
    weights, thresholds = np.ones((2, 100, 200), np.float32)
    thresholds[:] = 0
    weights[:, :150], thresholds[:, 180:] = 0, 0.25
    cells = MaskCells(Mask(weights, thresholds), Roi(136, 18, 64, 64), GEOMETRY)
    assert cells.looks[0].tolist() == [False] * 2 + [True] * 6
    assert cells.weights(None)[3].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert cells.weights(0.5)[3].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(InputError, match="nothing to look at"):
        MaskCells(Mask(weights, thresholds), Roi(0, 0, 64, 64), GEOMETRY)


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ("polygon: [[0,0],[9,0]]", "polygon"),
        ("polygon: [[.nan,0],[9,0],[9,9]]", "polygon"),
        ("polygon: [[70,0],[90,0],[90,9]]", "does not lie inside the picture of 64×64"),
        ("polygon: [[0,0],[9,0],[9,9]], wieght: 2", "wieght"),
        ("polygon: [[0,0],[9,0],[9,9]], weight: -1", "weight"),
        ("polygon: [[0,0],[9,0],[9,9]], weight: 2, threshold: 1", "one of both"),
        ("polygon: [[0,0],[9,0],[9,9]], weight: 0", "nothing to look at"),
        ("polygon: [[0,0],[9,0],[9,9]], threshold: 1", "expected one without"),
        (None, "regions: "),
    ],
)
def test_mistakes_in_a_mask_are_named(tmp_path: Path, region: str | None, said: str) -> None:
    file = tmp_path / "part.mask.yaml"
    regions = "" if region is None else f"{{name: a, {region}}}"
    refused_for(
        file, f"{{format_version: 1, picture: {{width: 64, height: 64}}, regions: [{regions}]}}", said
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found no keys and values; expected a mask"),
        ("regions: 7", "format_version: Field required"),
        (
            "{format_version: 1, picture: {width: 64}, regions: [{name: a, polygon: [[0,0],[9,0],[9,9]]}]}",
            "picture: ",
        ),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, content: str, said: str) -> None:
    refused_for(tmp_path / "part.mask.yaml", content, said)


def refused_for(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(InputError) as refused:
        read_mask(file)
    assert str(refused.value).startswith(f"{file}: ") and said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pictures_as_masks(tmp_path: Path) -> None:
    grey = np.zeros(SQUARE, np.uint8)
    grey[:8], grey[8:16] = 255, 51
    cv2.imwrite(str(tmp_path / "m.png"), grey)
    assert np.unique(read_mask(tmp_path / "m.png").weights).tolist() == pytest.approx([0, 0.2, 1])
    for wrong, said in (
        (np.zeros(SQUARE, np.uint8), "nothing to look at"),
        (grey.astype(np.uint16), "more than 8 bits"),
    ):
        cv2.imwrite(str(tmp_path / "m.png"), wrong)
        with pytest.raises(InputError, match=said):
            read_mask(tmp_path / "m.png")
    cv2.imwrite(str(tmp_path / "m.png"), np.dstack([grey, 0 * grey, grey]))
    with pytest.raises(InputError, match="has colours"):
        read_mask(tmp_path / "m.png")


def part(seed: int, *, at: tuple[int, int] = (60, 50)) -> Frame:
    random = np.random.default_rng(seed)
    picture = random.normal(12, 2, (120, 160, 3))
    cv2.circle(picture, at, 30, (120, 140, 160), -1, cv2.LINE_AA)
    cv2.circle(
        picture, at, 12, (12, 12, 12), -1, cv2.LINE_AA
    )  # a hole like the background belongs to the part
    return picture.clip(0, 255).astype(np.uint8)


def test_a_mask_is_suggested_around_the_part() -> None:
    size, regions = suggest([part(seed, at=(60 + seed % 3, 50)) for seed in range(8)], 3)
    (only,) = regions
    looks = Mask.of_regions(size, regions).weights > 0
    assert size == (120, 160) and only.name == "part"
    assert looks[50, 60] and looks[50, 30] and looks[19, 61] and not looks[50, 20] and not looks[100, 140]
    with pytest.raises(InputError, match="no part was found"):
        suggest([np.full((60, 60, 3), 9, np.uint8)] * 5, 3)
    random = np.random.default_rng(0)
    blocks = [np.kron(random.integers(0, 255, (6, 6, 1)), np.ones((10, 10, 3))) for _ in range(5)]
    with pytest.raises(InputError, match="no background was found"):
        suggest([picture.astype(np.uint8) for picture in blocks], 3)
    with pytest.raises(InputError, match="found 4 pictures, expected at least 5"):
        suggest([part(1)] * 4, 3)
    with pytest.raises(InputError, match="expected pictures of one camera"):
        suggest([part(1), np.zeros((5, 5, 3), np.uint8)], 3)


def test_the_commands_draw_masks(tmp_path: Path) -> None:
    for seed in range(6):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), part(seed))
    out, shown = tmp_path / "part.mask.yaml", tmp_path / "shown.png"
    said = command("inspectctl", "mask", "suggest", tmp_path, "--out", out, "--show", shown)
    assert "part: 2" in said and "% of the picture" in said
    assert read_image(shown)[100, 140].max() < 10 < read_image(shown)[50, 40].max()
    suggested = read_mask(out)
    cv2.imwrite(str(tmp_path / "white.png"), (suggested.weights * 255).astype(np.uint8))
    drawn = tmp_path / "drawn.yaml"
    draw = ("inspectctl", "mask", "draw", tmp_path / "0.png", "--out", drawn)
    command(*draw, "--white", tmp_path / "white.png")
    assert np.abs(read_mask(drawn).weights - suggested.weights).mean() < 0.01
    regions = ("--region", "label:10,10 60,10 60,60", "--region", "seal:20,12 50,12 50,30:weight=2")
    command(*draw, *regions)
    assert np.unique(read_mask(drawn).weights).tolist() == [0, 1, 2]
    for wrong, word in (
        (("--region", "label:10,10 60,10"), "at least three corners"),
        (("--region", "label:200,10 260,10 260,60"), "does not lie inside the picture of 160×120"),
        (("--region", "label:1,1 9,1 9,9:weight=-1"), "weight"),
        (("--white", tmp_path / "shown.png"), "has colours"),
        (("--white", tmp_path / "missing.png"), "cannot be read"),
    ):
        assert word in command(*draw, *wrong, code=2)
    line = command("inspectctl", "mask", "suggest", tmp_path / "none", "--out", out, code=2)
    assert "is not there" in line


# What is judged: bright on the left is background noise, bright on the right a defect.


def good_and_bad(folder: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    for kind, count, side in (("good", 24, 0), ("bad", 4, 40)):
        (folder / kind).mkdir()
        for number in range(count):
            picture = random.integers(30, 50, (SIZE, SIZE, 3)).astype(np.uint8)
            glow = random.integers(200, 256) if kind == "bad" or number % 5 == 0 else 60
            picture[8 * (number % 6) : 8 * (number % 6) + 8, side : side + 8] = glow
            cv2.imwrite(str(folder / kind / f"{number:02d}.png"), picture)
    return folder / "good", folder / "bad"


def test_calibrate_and_evaluate_look_where_the_mask_says(tmp_path: Path, brightness_engine: Path) -> None:
    good, bad = good_and_bad(tmp_path)
    mask = mask_file(tmp_path / "part.mask.yaml")
    without = calibrate(brightness_engine, good, bad, 0.05)
    measured = calibrate(brightness_engine, good, bad, 0.05, mask=mask)
    # The glow of the background on every fifth picture is as bright as a defect.
    assert (without.good_scores > without.defective_scores.min()).any()
    assert measured.good_scores.max() < measured.defective_scores.min() / 2
    assert measured.calibration.mask == read_mask(mask).digest and without.calibration.mask is None
    # A corner where a defect is allowed: its own threshold is above what is seen there.
    corner = {"name": "corner", "polygon": [[40, 0], [48, 0], [48, 8], [40, 8]], "threshold": 1000.0}
    own = mask_file(tmp_path / "own.mask.yaml", {"name": "right", "polygon": RIGHT}, corner)
    tolerant = calibrate(brightness_engine, good, bad, 0.05, mask=own)
    assert (tolerant.defective_scores > tolerant.threshold.value).tolist() == [False, True, True, True]
    file = tmp_path / "b.calibration.yaml"
    write_calibration(file, measured.calibration)
    samples = [Sample(path, None) for path in sorted(good.iterdir())]
    judge = open_judge(brightness_engine, file)
    judged = judge_samples(judge, samples, None, None, mask)
    assert judged.scores == pytest.approx(measured.good_scores)
    with pytest.raises(InputError, match=r"--mask: found none, but the calibration was made with the mask"):
        judge_samples(judge, samples, None, None)
    small = {"name": "a", "polygon": [[0, 0], [30, 0], [30, 30]]}
    other = mask_file(tmp_path / "s.yaml", small, size=Size(32, 32))
    with pytest.raises(InputError, match=r"drawn on a picture of 32×32 pixels, but .* shows one of 64×64"):
        calibrate(brightness_engine, good, None, 0.05, mask=other)


def test_the_line_looks_where_the_mask_says(line_folder: Path) -> None:
    mask = mask_file(line_folder / "part.mask.yaml")
    file = line_folder / "brightness.calibration.yaml"
    manifest = read_manifest(line_folder / "brightness.engine")
    calibration = load_calibration(file, manifest.payload_sha256, manifest.maps)
    part_image(line_folder / "parts/1.png", bright=True, spot=(8, 8))
    part_image(line_folder / "parts/2.png", bright=True, spot=(40, 8))
    camera = {"source": "parts"}

    def check(cameras: dict[str, Any], code: int = 2, **keys: Any) -> str:
        return command(
            "inspectd", "--config", write_config(line_folder, cameras, **keys), "--check", code=code
        )

    found = check({"top": camera}, mask="part.mask.yaml")
    assert "mask: " in found and f"is {read_mask(mask)}, expected none, with which" in found
    write_calibration(file, calibration.model_copy(update={"mask": read_mask(mask).digest}))
    assert "mask: missing; expected the mask" in check({"top": camera})
    mask_file(line_folder / "other.yaml", {"name": "all", "polygon": [[0, 0], [64, 0], [64, 64]]})
    assert "expected the mask" in check({"top": camera | {"mask": "other.yaml"}})
    assert "cannot be read" in check({"top": camera}, mask="lost.yaml")
    both = {"top": camera | {"mask": "part.mask.yaml"}, "side": camera}
    assert "cameras.side.mask: missing" in check(both)
    check({"top": camera | {"mask": "part.mask.yaml"}}, code=0)
    config = write_config(line_folder, {"top": camera}, mask="part.mask.yaml", archive={"folder": "rejects"})
    with running(config) as line:
        line.until_end()
        first, second = line.verdicts
    assert (first.decision, second.decision) == ("pass", "reject")
    assert first.mask == second.mask == read_mask(mask).digest
    assert first.score is not None and first.score < 0.2
    assert second.peak is not None and second.peak.x > 32 and second.archive is not None
    overlay = read_image(Path(second.archive))
    assert overlay[30, 10].max() < overlay[60, 50].max()  # what is not looked at is darker


def test_regions_that_overlap_hold_in_their_order() -> None:
    def square(size: int, **about: float) -> Region:
        corners = ((0.0, 0.0), (size - 1.0, 0.0), (size - 1.0, size - 1.0), (0.0, size - 1.0))
        return Region(name=str(size), polygon=corners, **about)

    mask = Mask.of_regions(
        Size(40, 40), (square(30, weight=2), square(20, threshold=0.5), square(10, weight=0))
    )
    assert (mask.weights[5, 5], mask.weights[15, 15], mask.weights[25, 25], mask.weights[35, 35]) == (
        0,
        1,
        2,
        0,
    )
    assert (mask.thresholds[5, 5], mask.thresholds[15, 15], mask.thresholds[25, 25]) == (0, 0.5, 0)
