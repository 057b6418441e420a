import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.capture.drivers.simulated import DEFECTS, LOGICAL_DEFECTS, Part, SimulatedLine
from daemon.capture.drivers.simulated.__main__ import main
from foundation.errors import InputError
from pictures.frames import Frame
from pictures.image_file import read_image

SMALL = {"width": 256, "height": 256}


def digest(line: SimulatedLine, index: int) -> str:
    frame, part = line.frame(index)
    return hashlib.sha256(frame.tobytes() + str(part).encode()).hexdigest()


def changed(good: Frame, bad: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (x and y) in which two frames differ."""
    y, x = np.nonzero((good != bad).any(axis=2))
    return x, y


def test_frames_do_not_depend_on_order_or_process() -> None:
    program = (
        "import hashlib; from daemon.capture.drivers.simulated import SimulatedLine\n"
        "line = SimulatedLine(seed=7, defects=0.5, width=256, height=256)\n"
        "for index in range(12):\n"
        "    frame, part = line.frame(index)\n"
        "    print(hashlib.sha256(frame.tobytes() + str(part).encode()).hexdigest())\n"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    line = SimulatedLine(seed=7, defects=0.5, **SMALL)
    backwards = [digest(line, index) for index in reversed(range(12))][::-1]
    again = [digest(SimulatedLine(seed=7, defects=0.5, **SMALL), index) for index in range(12)]

    assert elsewhere == backwards == again
    assert len(set(elsewhere)) == 12


def test_writing_into_a_frame_does_not_touch_the_next() -> None:
    line = SimulatedLine(defects=0.5, **SMALL)
    before = digest(line, 3)
    for index in range(6):
        line.frame(index)[0][:] = 0
    assert digest(line, 3) == before


def test_seeds_give_other_parts() -> None:
    one, two = SimulatedLine(seed=1, **SMALL), SimulatedLine(seed=2, **SMALL)
    assert not set(map(digest, [one] * 5, range(5))) & set(map(digest, [two] * 5, range(5)))


def test_good_parts_differ_modestly() -> None:
    line = SimulatedLine(**SMALL)
    frames = np.stack([line.frame(index)[0].astype(np.float32) for index in range(0, 240, 12)])
    means = frames.mean(axis=(1, 2, 3))
    assert means.std() > 0.5  # the lamp drifts
    assert np.ptp(means) < 0.25 * means.mean()
    typical = np.median(frames, axis=0)
    differences = np.abs(frames - typical).mean(axis=(1, 2, 3))
    assert differences.min() > 2
    assert differences.max() < 20


def test_light_drifts_slowly() -> None:
    line = SimulatedLine(**SMALL)
    means = np.array([line.frame(index)[0].mean() for index in range(100)])
    assert np.abs(np.diff(means)).mean() < 0.25 * np.ptp(means)


@pytest.mark.parametrize("size", [(512, 512), (256, 256), (320, 200), (131, 247)])
def test_any_size_shows_the_part_in_the_middle(size: tuple[int, int]) -> None:
    width, height = size
    frame, part = SimulatedLine(width=width, height=height).frame(0)
    assert frame.shape == (height, width, 3)
    assert frame.dtype == np.uint8
    assert part == Part(0, None, None)
    radius = 0.43 * min(size)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) / radius
    face, bore, belt = (
        frame[where].mean() for where in (abs(distance - 0.7) < 0.03, distance < 0.15, distance > 1.2)
    )
    assert face > 2 * max(bore, belt)


@pytest.mark.parametrize("size", [(512, 512), (320, 256)])
def test_a_defect_changes_pixels_at_its_place_and_nowhere_else(size: tuple[int, int]) -> None:
    width, height = size
    good = SimulatedLine(seed=3, width=width, height=height)
    bad = SimulatedLine(seed=3, defects=1, width=width, height=height)
    radius = 0.43 * min(size)
    # How far from its place a defect may reach, in radii of the part: half of the longest scratch, a hole and
    # the place it was moved from, five characters of the engraving.
    reach = dict(zip(DEFECTS, (0.48, 0.30, 0.30, 0.13, 0.28, 0.45), strict=True))
    seen: Counter[str] = Counter()
    for index in range(60):
        (clean, _), (damaged, part) = good.frame(index), bad.frame(index)
        assert part.index == index
        assert part.defect is not None
        assert part.place is not None
        x, y = changed(clean, damaged)
        distance = np.hypot(x - part.place[0], y - part.place[1])
        assert distance.max() < reach[part.defect] * radius + 3, part
        # To be seen at all: some pixels change by much more than the noise.
        contrast = np.abs(clean.astype(int) - damaged).max(axis=2)
        assert (contrast > 20).sum() > 0.0002 * width * height, part
        assert np.hypot(part.place[0] - width / 2, part.place[1] - height / 2) < 1.05 * radius
        seen[part.defect] += 1
    assert set(seen) == set(DEFECTS)


def test_the_share_of_defects_is_the_wanted_one_and_all_kinds_come_equally_often() -> None:
    line = SimulatedLine(seed=11, defects=0.3, width=64, height=64)
    defects = [line.frame(index)[1].defect for index in range(1500)]
    counts = Counter(defect for defect in defects if defect)
    # Four standard deviations of a binomial count.
    assert abs(counts.total() - 450) < 4 * (1500 * 0.3 * 0.7) ** 0.5
    assert set(counts) == set(DEFECTS)
    assert all(abs(count - 75) < 4 * 75**0.5 for count in counts.values())


def test_a_larger_share_keeps_the_smaller_ones_defects() -> None:
    few, many = (SimulatedLine(defects=share, width=64, height=64) for share in (0.1, 0.4))
    parts = [(few.frame(index)[1], many.frame(index)[1]) for index in range(200)]
    assert any(fewer.defect for fewer, _ in parts)
    assert all(fewer == more for fewer, more in parts if fewer.defect)


@pytest.mark.parametrize(
    "options",
    [
        {"defects": -0.1},
        {"defects": 1.1},
        {"defects": float("nan")},
        {"seed": -1},
        {"width": 20},
        {"height": 10**9},
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        SimulatedLine(**options)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        SimulatedLine(**SMALL).frame(-1)


indexes = st.integers(0, 10**9)
places = st.tuples(st.integers(0, 9999), st.integers(0, 9999))
parts = st.builds(Part, indexes, st.none(), st.none()) | st.builds(
    Part, indexes, st.sampled_from(DEFECTS), places
)


@given(parts)
def test_a_parts_text_reads_back(part: Part) -> None:
    assert Part.parse(str(part)) == part


@given(st.text() | st.from_regex(r"[0-9]{5,8} (good|scratch)(@[0-9]*,[0-9]*)?", fullmatch=True))
def test_text_is_either_a_part_or_refused(text: str) -> None:
    try:
        part = Part.parse(text)
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert str(part) == text


def test_part_texts_as_the_wire_carries_them() -> None:
    assert str(Part(123, None, None)) == "000123 good"
    assert str(Part(124, "scratch", (131, 88))) == "000124 scratch@131,88"
    for text in ("", "123 good", "000123 good@1,2", "000123 scratch", "000123 rust@1,2", "000123 dent@-1,2"):
        with pytest.raises(ValueError, match="simulated part"):
            Part.parse(text)


def test_images_command_writes_the_frames_by_truth(tmp_path: Path) -> None:
    options = ["--count", "10", "--first", "5", "--defects", "0.5", "--seed", "4", "--size", "96x64"]
    assert main(["--images", str(tmp_path / "out"), *options]) == 0
    line = SimulatedLine(seed=4, defects=0.5, width=96, height=64)
    for index in range(5, 15):
        frame, part = line.frame(index)
        written = read_image(tmp_path / "out" / (part.defect or "good") / f"{index:06d}.png")
        assert np.array_equal(written, frame)
    assert len(list(tmp_path.rglob("*.png"))) == 10


def test_sheet_command_draws_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert main(["--sheet", str(path)]) == 0
    assert path.stat().st_size < 400_000
    height, width = read_image(path).shape[:2]
    assert width > 400
    assert height > 400


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--images", "out", "--count", "0"], "--count: found 0"),
        (["--images", "out", "--first", "-3"], "--first: found -3"),
        (["--images", "out", "--size", "12"], "--size: found '12'"),
        (["--images", "out", "--size", "12x12"], "width: found 12"),
        (["--images", "out", "--defects", "7"], "defects: found 7.0"),
        (["--images", "file/out"], "cannot be made"),
        (["--sheet", "missing/sheet.png"], "cannot be written"),
        (["--sheet", "sheet.jpg"], "ends in .png"),
        (["--sheet", "sheet.png", "--seed", "-1"], "--seed: found -1"),
    ],
)
def test_bad_options_give_one_line_and_code_2(
    options: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(options) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line and "part/s" not in line]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not list(tmp_path.rglob("*.png"))


def test_logical_defects_are_made_where_they_are_asked_for() -> None:
    usual, logical = (
        SimulatedLine(seed=4, defects=1, **SMALL),
        SimulatedLine(seed=4, defects=1, kinds="logical", **SMALL),
    )
    good = SimulatedLine(seed=4, **SMALL)
    seen: Counter[str | None] = Counter()
    for index in range(40):
        assert usual.frame(index)[1].defect in DEFECTS
        frame, part = logical.frame(index)
        assert part.defect in LOGICAL_DEFECTS
        assert Part.parse(str(part)) == part
        assert part.place is not None
        x, y = changed(good.frame(index)[0], frame)
        assert x.size > 0.001 * frame.shape[0] * frame.shape[1], part
        assert np.hypot(x - part.place[0], y - part.place[1]).min() < 12, part
        seen[part.defect] += 1
    assert set(seen) == set(LOGICAL_DEFECTS)
    both = SimulatedLine(seed=4, defects=1, kinds="all", **SMALL)
    assert {both.frame(index)[1].defect for index in range(60)} == {*DEFECTS, *LOGICAL_DEFECTS}


def test_every_spot_of_a_logical_defect_looks_as_on_a_good_part() -> None:
    """Of a part that lies further round: the engraving is gone here, and there it has the usual levels."""
    good, turned = SimulatedLine(seed=4, **SMALL), SimulatedLine(seed=4, defects=1, kinds="logical", **SMALL)
    index = next(index for index in range(40) if turned.frame(index)[1].defect == "turned")
    levels = [line.frame(index)[0].astype(float) for line in (good, turned)]
    quantiles = [np.quantile(picture, (0.01, 0.1, 0.5, 0.9, 0.99)) for picture in levels]
    np.testing.assert_allclose(quantiles[1], quantiles[0], atol=6)


def test_wrong_kinds_of_defects() -> None:
    with pytest.raises(InputError, match="kinds: found 'many'; expected local, logical, all"):
        SimulatedLine(kinds="many")
