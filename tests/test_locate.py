"""A part is found where it lies, brought to its place, and judged there."""

import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from brightness import THRESHOLD, calibrate
from hypothesis import given, settings
from hypothesis import strategies as st
from line_rig import COMMANDS, running, write_config

from foundation.errors import InputError
from models.commands import train_model
from models.datasets.data_set import Sample
from models.evaluation.evaluate import judge_samples
from models.evaluation.judge import open_judge
from pictures.frames import Frame, Roi, Size
from pictures.image_file import read_image
from pictures.locating.locator import Locator, NotLocated, Place
from pictures.locating.reference import Reference, parse_reference
from pictures.locating.reference_file import read_reference, write_reference
from pictures.locating.teach import teach
from pictures.mask import Region, read_mask
from pictures.recording_note import RecordingNote, with_note
from pictures.region import seen_region
from pictures.trained_on import TrainedOn, as_metadata, trained_on
from pictures.view import View, at, in_the_picture, straightened, whole

CAMERA = Size(240, 320)
MIDDLE = (160.0, 120.0)


def belt(seed: int) -> Frame:
    noise = np.random.default_rng(seed).normal(60, 4, (*CAMERA, 3))
    return cv2.GaussianBlur(noise, (0, 0), 0.8).clip(0, 255).astype(np.uint8)  # type: ignore[return-value]


def drawn(shape: str, place: Place, seed: int, *, light: float = 1.0, spot: bool = False) -> Frame:
    """Draw a part about the picture's middle, four times as fine, and bring it to its place."""
    fine = np.zeros((4 * CAMERA.height, 4 * CAMERA.width), np.uint8)
    x, y = (round(4 * side) for side in MIDDLE)
    if shape == "bracket":
        cv2.fillPoly(
            fine,
            [np.array([(-60, -45), (60, -45), (60, -5), (-15, -5), (-15, 50), (-60, 50)]) * 4 + (x, y)],
            200,
        )
        cv2.circle(fine, (x - 130, y - 90), 50, 90, -1, cv2.LINE_AA)
    elif shape == "square":
        cv2.rectangle(fine, (x - 180, y - 180), (x + 180, y + 180), 200, -1)
    elif shape == "round":
        cv2.circle(fine, (x, y), 200, 200, -1, cv2.LINE_AA)
        cv2.circle(fine, (x, y), 90, 90, -1, cv2.LINE_AA)
    elif shape == "bar":
        cv2.rectangle(fine, (0, y - 60), (fine.shape[1], y + 60), 200, -1)
    if spot:
        cv2.rectangle(fine, (x - 170, y + 60), (x - 90, y + 140), 255, -1)
    matrix = cv2.getRotationMatrix2D((x - 0.5, y - 0.5), -place.turn, place.scale)
    matrix[:, 2] += (4 * place.dx, 4 * place.dy)
    part = cv2.resize(
        cv2.warpAffine(fine, matrix, fine.shape[::-1], borderMode=cv2.BORDER_REPLICATE),
        CAMERA[::-1],
        interpolation=cv2.INTER_AREA,
    )
    cover = (part > 0)[..., None]
    picture = np.where(cover, part[..., None], belt(seed)) * light
    noise = np.random.default_rng(seed + 10_000).normal(0, 2, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def places(count: int, seed: int = 0, turn: float = 10) -> list[Place]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        dx, dy, angle = random.uniform(-1, 1, 3) * (8, 8, turn)
        found.append(Place(float(dx), float(dy), float(angle), 1.0, 0.0))
    return found


def taught(shape: str = "bracket", **options: Any) -> Reference:
    part = Roi(95, 70, 130, 105)
    at_home = Place(0, 0, 0, 1, 0)
    pictures = [drawn(shape, place, seed) for seed, place in enumerate([at_home, *places(5)])]
    return teach(pictures, part=part, **options).reference


@pytest.fixture(scope="module")
def bracket() -> Reference:
    return taught(turn=20)


@given(
    motion=st.tuples(st.floats(-25, 25), st.floats(-25, 25), st.floats(-18, 18)),
    light=st.floats(0.5, 1.2),
    seed=st.integers(100, 200),
)
@settings(max_examples=30, deadline=None)
def test_a_part_is_found_to_a_fraction_of_a_pixel(
    bracket: Reference, motion: tuple[float, float, float], light: float, seed: int
) -> None:
    dx, dy, turn = motion
    wanted = Place(dx, dy, turn, 1.0, 0.0)
    found = Locator(bracket).locate(drawn("bracket", wanted, seed, light=light))
    assert isinstance(found, Place), found
    # The part was drawn about the picture's middle, and turns about its own.
    about = np.array(bracket.middle) - (MIDDLE[0] - 0.5, MIDDLE[1] - 0.5)
    radians = np.radians(turn)
    moved = (
        np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]]) @ about - about
    )
    assert abs(found.dx - dx - moved[0]) < 0.3
    assert abs(found.dy - dy - moved[1]) < 0.3
    assert abs(found.turn - turn) < 0.4
    assert found.residual < 0.3


def test_size_and_full_turns_are_found_where_they_are_allowed() -> None:
    locator = Locator(taught(turn=180, scale=0.2))
    for wanted in (Place(0, 0, 170, 1, 0), Place(3, -4, -95, 1.15, 0), Place(-5, 0, 45, 0.85, 0)):
        found = locator.locate(drawn("bracket", wanted, 7))
        assert isinstance(found, Place)
        assert abs((found.turn - wanted.turn + 180) % 360 - 180) < 0.6
        assert abs(found.scale - wanted.scale) < 0.01


def test_what_is_not_the_part_is_not_found(bracket: Reference) -> None:
    locator = Locator(bracket)
    others: list[Frame] = [belt(5), np.zeros((*CAMERA, 3), np.uint8), drawn("round", Place(0, 0, 0, 1, 0), 5)]
    others.append(np.random.default_rng(1).integers(0, 255, (*CAMERA, 3)).astype(np.uint8))
    for picture in others:
        found = locator.locate(picture)
        assert isinstance(found, NotLocated), found
        assert "of its edges are missing" in found.reason
    turned = locator.locate(drawn("bracket", Place(0, 0, 25, 1, 0), 5))
    assert isinstance(turned, NotLocated) and "turned by 2" in turned.reason
    half = drawn("bracket", Place(4, 2, 3, 1, 0), 6)
    half[:, 175:] = belt(9)[:, 175:]  # a third of it is broken off: still found, so that it is judged
    assert isinstance(locator.locate(half), Place)
    other_camera = locator.locate(np.zeros((100, 100, 3), np.uint8))
    assert isinstance(other_camera, NotLocated) and "taught on pictures of 320×240" in other_camera.reason


@pytest.mark.parametrize(("shape", "symmetry"), [("round", 0.0), ("square", 90.0), ("bracket", None)])
def test_symmetric_parts_are_said_to_be(shape: str, symmetry: float | None) -> None:
    reference = taught(shape, turn=60)
    assert reference.symmetry == (None if symmetry is None else pytest.approx(symmetry, abs=4))
    assert (
        reference.allowed.turn == {0.0: 0.0, 90.0: pytest.approx(45, abs=2)}.get(symmetry or 0.0, 60)
        or shape == "bracket"
    )


def test_several_parts_are_found_in_the_order_of_reading() -> None:
    rows = np.zeros((480, 640, 3), np.uint8)
    seen = []
    for row, (dx, dy, turn) in enumerate([(0, 3, 4), (5, -4, -6), (-6, 0, 8), (2, 2, 0)]):
        y, x = divmod(row, 2)
        rows[240 * y : 240 * (y + 1), 320 * x : 320 * (x + 1)] = drawn(
            "bracket", Place(dx, dy, turn, 1, 0), row
        )
        seen.append((320 * x + dx, 240 * y + dy, turn))
    first = np.zeros_like(rows)
    pictures = []
    for seed in range(4):
        pictures.append(first.copy())
        pictures[-1][:240, :320] = drawn("bracket", Place(0, 0, seed, 1, 0), seed)
    reference = teach(pictures, part=Roi(95, 70, 130, 105), shift=400).reference
    found = Locator(reference).locate_all(rows, 5)
    for place, (dx, dy, turn) in zip(found[:4], seen, strict=True):
        assert isinstance(place, Place)
        assert abs(place.dx - dx) < 2 and abs(place.dy - dy) < 2 and abs(place.turn - turn) < 1
    assert isinstance(found[4], NotLocated)
    assert found[4].reason == "there is no other part within 400 pixels of the taught place"


def test_a_part_brought_to_its_place_and_back(bracket: Reference) -> None:
    home = drawn("bracket", Place(0, 0, 0, 1, 0), 0)
    moved = drawn("bracket", Place(11.4, -7.2, 9, 1, 0), 3)
    looked = View.of(Roi(100, 75, 120, 95), bracket).look(moved)
    assert looked.placed is not None
    expected = home[75:170, 100:220].astype(int)
    assert np.abs(looked.seen.astype(int) - expected).mean() < 8  # the belt has another texture
    middle = at(looked.placed, *bracket.middle)
    assert cv2.norm(np.array(middle) - bracket.middle - (11.4, -7.2)) < 3
    everything = whole(CAMERA)
    back = in_the_picture(
        straightened(moved, looked.placed, everything), looked.placed, everything, CAMERA, 0
    )
    inside = (slice(60, 180), slice(100, 240))
    assert np.abs(back[inside].astype(int) - moved[inside].astype(int)).mean() < 4


def test_a_reference_survives_its_file_and_a_models_metadata(tmp_path: Path, bracket: Reference) -> None:
    file = tmp_path / "part.locate.png"
    write_reference(file, bracket, belt(1))
    assert read_reference(file) == bracket == parse_reference(bracket.text)
    assert read_image(file).shape == (*CAMERA, 3)  # and people can look at it
    trained = TrainedOn(Roi(1, 2, 3, 4), None, CAMERA, bracket)
    assert trained_on(as_metadata(trained)) == trained
    content = file.read_bytes()
    for damaged, word in (
        (content[:200], "damaged"),
        (b"nonsense", "no taught part"),
        (b"", "no taught part"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=f"part.locate.png: .*{word}"):
            read_reference(file)


@given(st.text(max_size=60) | st.sampled_from(["{}", "[]", '{"format_version": 1}', "1e999", "[" * 5000]))
def test_nonsense_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError):
        parse_reference(text)


def test_images_have_to_be_whole_pictures_of_the_camera(tmp_path: Path, bracket: Reference) -> None:
    def noted(name: str, roi: Roi | None, size: Size) -> Path:
        shown = size if roi is None else Size(roi.height, roi.width)
        png = cv2.imencode(".png", np.zeros((*shown, 3), np.uint8))[1].tobytes()
        path = tmp_path / name
        path.write_bytes(with_note(png, RecordingNote("/dev/video0", size, roi, "2026-01-31T12:00:00Z", "1")))
        return path

    good = noted("whole.png", None, CAMERA)
    roi = Roi(10, 10, 100, 100)
    seen = seen_region([good], roi, reference=bracket)
    assert (seen.cut, seen.roi, seen.camera_picture, seen.reference) == (roi, roi, CAMERA, bracket)
    assert seen_region([good], None, TrainedOn(roi, None, CAMERA, bracket)) == seen
    for wrong in (noted("cut.png", roi, CAMERA), noted("other.png", None, Size(480, 640))):
        with pytest.raises(InputError, match=rf"{wrong.name}: shows .* taught on whole pictures of 320×240"):
            seen_region([wrong], None, reference=bracket)
    with pytest.raises(
        InputError, match="--roi: found 300,0,100,10, which does not lie inside the reference"
    ):
        seen_region([good], Roi(300, 0, 100, 10), reference=bracket)


# The commands.


def images(folder: Path, pictures: list[Frame]) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


def inspectctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / "inspectctl", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_teach_and_try(tmp_path: Path) -> None:
    good = images(tmp_path / "good", [drawn("bracket", place, seed) for seed, place in enumerate(places(6))])
    out = tmp_path / "part.locate.png"
    done = inspectctl("locate", "teach", good, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "in 6 of 6 pictures: shifted" in done.stdout and done.stderr == ""
    images(tmp_path / "test", [drawn("bracket", Place(15, 3, -8, 1, 0), 50), belt(51)])
    tried = inspectctl("locate", "try", out, tmp_path / "test", "--show", tmp_path / "shown")
    assert tried.returncode == 1  # one is not there
    first, second, last = tried.stdout.splitlines()
    assert "000.png: shift +" in first and "001.png: not located: no part was found" in second
    assert "1 of 2 parts located" in last
    assert len(list((tmp_path / "shown").iterdir())) == 2
    live = inspectctl("camera", "test", tmp_path / "test", "--each", "--locate", out, "--fps", "100")
    assert live.returncode == 0, live.stderr
    said = live.stdout.splitlines()
    assert "taken: 000 (picture 1)  shift +" in said[0].replace(".png", "") and "residual 0." in said[0]
    assert any("(picture 2)  not located: no part was found" in line for line in said)
    assert any(" locate " in line and line.endswith(" ms") for line in said)


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("blank", (), "no part was found"),
        ("noise", (), "part"),
        ("belt", (), "part"),
        (
            "bracket",
            ("--search", "300,0,100,100"),
            r"search region 100×100\+300\+0 does not lie inside the picture",
        ),
        ("bracket", ("--part", "300,200,100,100"), r"part 100×100\+300\+200 does not lie inside the picture"),
        (
            "bracket",
            ("--part", "90,60,140,110", "--search", "0,0,100,100"),
            "does not lie inside the search region",
        ),
        ("bracket", ("--turn", "181"), "expected a number from 0 to 180"),
        ("bar", (), "run in one direction"),
        ("few", (), "found 2 pictures, expected at least 3"),
        ("sizes", (), "expected pictures of one camera"),
        ("cut", (), "shows the region .* alone"),
        ("missing", (), "is not there"),
    ],
)
def test_mistakes_in_teaching_get_one_line(
    tmp_path: Path, what: str, options: tuple[str, ...], said: str
) -> None:
    random = np.random.default_rng(0)
    shapes = {
        "blank": [np.full((*CAMERA, 3), 128, np.uint8)] * 4,
        "noise": [random.integers(0, 255, (*CAMERA, 3)).astype(np.uint8) for _ in range(5)],
        "belt": [belt(seed) for seed in range(5)],
        "few": [drawn("bracket", place, 1) for place in places(2)],
        "sizes": [drawn("bracket", places(1)[0], 1), *[np.zeros((64, 64, 3), np.uint8)] * 3],
    }
    folder = tmp_path / "good"
    if what == "cut":
        images(folder, [belt(1)] * 3)
        png = cv2.imencode(".png", belt(1))[1].tobytes()
        note = RecordingNote("/dev/video0", Size(480, 640), Roi(0, 0, 320, 240), "2026-01-31T12:00:00Z", "1")
        (folder / "000.png").write_bytes(with_note(png, note))
    elif what != "missing":
        images(folder, shapes.get(what) or [drawn(what, place, seed) for seed, place in enumerate(places(5))])
    out = tmp_path / "part.locate.png"
    done = inspectctl("locate", "teach", folder, "--out", out, *options)
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("inspectctl")]
    assert done.returncode == 2 and not out.exists()
    assert re.search(said, line), line


# The daemon.


@pytest.fixture(scope="module")
def marked() -> tuple[Reference, list[Frame]]:
    """A reference, and pictures: good, with a bright spot, without a part."""
    reference = taught(turn=20)
    return reference, [
        drawn("bracket", Place(5, 4, 6, 1, 0), 31),
        drawn("bracket", Place(-12, 9, -10, 1, 0), 32, spot=True),
        belt(33),
    ]


def with_reference(folder: Path, reference: Reference, roi: Roi) -> None:
    write_reference(folder / "part.locate.png", reference, belt(0))
    about = {"locate": reference.digest, "roi": roi, "camera_picture": reference.picture}
    calibrate(folder / "brightness.engine", folder / "brightness.calibration.yaml", 0.9, **about)


ROI = Roi(96, 56, 128, 128)


@pytest.mark.parametrize("not_found", ["fault", "reject"])
def test_the_daemon_brings_parts_to_their_place(
    line_folder: Path, marked: tuple[Reference, list[Frame]], not_found: str
) -> None:
    reference, pictures = marked
    with_reference(line_folder, reference, ROI)
    images(line_folder / "parts", pictures)
    camera = {
        "source": "parts",
        "roi": ROI._asdict(),
        "locate": {"reference": "part.locate.png", "not_found": not_found},
    }
    config = write_config(line_folder, {"top": camera}, archive={"folder": "rejects"})
    assert subprocess.run([COMMANDS / "inspectd", "--config", config, "--check"], check=False).returncode == 0
    with running(config) as line:
        errors = line.until_end()
    # What is not found needs no engine, and may overtake what is judged.
    good, spot, nothing = verdicts = sorted(line.verdicts, key=lambda verdict: verdict.frame)
    assert [verdict.decision for verdict in verdicts] == ["pass", "reject", not_found]
    place = Locator(reference).locate(pictures[1])
    assert isinstance(place, Place) and spot.peak is not None
    # The spot's middle, 32 pixels left of the picture's and 25 below it, where the part lies in this picture.
    matrix = place.picture_from_reference(reference)
    x, y = matrix[:, :2] @ (MIDDLE[0] - 0.5 - 32.5, MIDDLE[1] - 0.5 + 25) + matrix[:, 2]
    assert abs(spot.peak.x - x) < 16 and abs(spot.peak.y - y) < 16  # a cell of the map is 16 pixels wide
    assert spot.archive is not None
    frame = read_image(Path(spot.archive.replace(".overlay.jpg", ".png")))
    row, column = np.argwhere(frame[..., 0] > 235).mean(axis=0) * 2 + 0.5
    assert abs(column - x) < 4 and abs(row - y) < 4
    assert read_image(Path(spot.archive)).shape[:2] == (CAMERA.height // 2, CAMERA.width // 2)  # all of it
    if not_found == "fault":
        assert nothing.reason == "camera" and nothing.score is None
        assert "locate: no part was found" in errors
    else:
        assert nothing.score is not None and nothing.score < nothing.threshold and nothing.archive
    assert good.score is not None and good.score < THRESHOLD + 0.4


def in_trays() -> Reference:
    """Teach a part in the upper left quarter of pictures of 640×480."""
    pictures = []
    for seed in range(4):
        pictures.append(np.zeros((480, 640, 3), np.uint8))
        pictures[-1][:240, :320] = drawn("bracket", Place(0, 0, 2 * seed, 1, 0), seed)
    return teach(pictures, part=Roi(95, 70, 130, 105), shift=400).reference


def test_each_part_of_a_tray_is_a_frame_of_its_own(
    line_folder: Path, marked: tuple[Reference, list[Frame]]
) -> None:
    _, (good, spot, nothing) = marked
    size = (480, 640, 3)
    with_reference(line_folder, in_trays(), ROI)
    tray = np.zeros(size, np.uint8)
    tray[:240, :320], tray[240:, 320:], tray[240:, :320] = good, spot, nothing
    images(line_folder / "parts", [tray, np.zeros(size, np.uint8)])
    camera = {"source": "parts", "roi": ROI._asdict(), "locate": {"reference": "part.locate.png", "parts": 3}}
    with running(write_config(line_folder, {"top": camera})) as line:
        line.until_end()
    decisions = [verdict.decision for verdict in sorted(line.verdicts, key=lambda verdict: verdict.frame)]
    assert decisions == ["pass", "reject", "fault", "fault", "fault", "fault"]
    rejected = next(verdict for verdict in line.verdicts if verdict.decision == "reject")
    assert rejected.part == "000.png 2 of 3"
    assert rejected.peak is not None and rejected.peak.x > 320 and rejected.peak.y > 240


def test_a_tray_under_a_mask_that_a_reload_changes(
    line_folder: Path, marked: tuple[Reference, list[Frame]]
) -> None:
    """With roi, locate, parts, mask and golden samples at once."""
    _, (good, spot, _) = marked
    size = Size(480, 640)
    reference = in_trays()
    write_reference(line_folder / "part.locate.png", reference, np.zeros((*size, 3), np.uint8))
    tray = np.zeros((*size, 3), np.uint8)
    tray[:240, :320], tray[240:, 320:] = good, spot
    images(line_folder / "parts", [tray])
    sample = np.zeros((*size, 3), np.uint8)
    sample[:240, :320] = good
    images(line_folder / "samples", [sample])

    def mask(name: str, *regions: Region) -> str:
        everywhere = Region(name="all", polygon=((0, 0), (640, 0), (640, 480), (0, 480)))
        content = [region.model_dump(mode="json") for region in (everywhere, *regions)]
        about = {"format_version": 1, "picture": {"width": 640, "height": 480}, "regions": content}
        (line_folder / name).write_text(yaml.safe_dump(about))
        return read_mask(line_folder / name).digest

    def calibrated(digest: str) -> None:
        seen = {"locate": reference.digest, "roi": ROI, "camera_picture": reference.picture}
        file = line_folder / "brightness.calibration.yaml"
        calibrate(line_folder / "brightness.engine", file, 0.9, mask=digest, **seen)

    x, y = MIDDLE[0] - 33, MIDDLE[1] + 25
    hole = ((x - 24, y - 24), (x + 24, y - 24), (x + 24, y + 24), (x - 24, y + 24))
    without_spot = mask("without.yaml", Region(name="spot", polygon=hole, weight=0))
    everywhere = mask("everywhere.yaml")
    calibrated(without_spot)
    locate = {"reference": "part.locate.png", "parts": 2}
    camera: dict[str, Any] = {"source": "parts", "fps": 20, "loop": True, "roi": ROI._asdict()}
    watched = {"control": f"ipc://{line_folder}/control", "golden": {}, "journal": {"file": "line3.journal"}}
    config = write_config(line_folder, {"top": camera | {"locate": locate}}, mask="without.yaml", **watched)
    added = inspectctl("golden", "add", "--config", config, "--good", line_folder / "samples/000.png")
    assert added.returncode == 0, added.stderr

    def decisions(line: Any) -> set[tuple[str, str]]:
        return {(str(verdict.part)[-6:], verdict.decision) for verdict in line.verdicts[-4:]}

    with running(config) as line:
        line.until(lambda line: len(line.verdicts) >= 4)
        assert decisions(line) == {("1 of 2", "pass"), ("2 of 2", "pass")}
        assert {verdict.mask for verdict in line.verdicts} == {without_spot}
        assert inspectctl("selftest", "--config", config).stdout.startswith("passed")
        calibrated(everywhere)
        refused = inspectctl("reload", "--config", config)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert "mask: " in refused.stderr and "calibrate with --mask" in refused.stderr
        config.write_text(config.read_text().replace("without.yaml", "everywhere.yaml"))
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(lambda line: {verdict.mask for verdict in line.verdicts[-4:]} == {everywhere})
        assert decisions(line) == {("1 of 2", "pass"), ("2 of 2", "reject")}
        assert inspectctl("selftest", "--config", config).stdout.startswith("passed")
        line.stop()
    assert sorted(verdict.frame for verdict in line.verdicts) == list(range(1, len(line.verdicts) + 1))


def test_a_reference_that_does_not_fit_is_refused(
    line_folder: Path, marked: tuple[Reference, list[Frame]]
) -> None:
    reference, pictures = marked
    images(line_folder / "parts", pictures)
    camera: dict[str, Any] = {"source": "parts", "roi": ROI._asdict()}

    def check(locate: dict[str, Any] | None, source: str = "parts") -> str:
        entry = camera | {"source": source} | ({} if locate is None else {"locate": locate})
        config = write_config(line_folder, {"top": entry})
        done = subprocess.run(
            [COMMANDS / "inspectd", "--config", config, "--check"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        return line

    ours = {"reference": "part.locate.png"}
    write_reference(line_folder / "part.locate.png", reference, belt(0))
    assert "cameras.top.locate: found the reference" in check(ours)  # of a calibration without one
    with_reference(line_folder, reference, ROI)
    assert "cameras.top.locate: found none, expected the reference" in check(None)
    other = taught("square")
    write_reference(line_folder / "other.locate.png", other, belt(0))
    assert f"found the reference {other.digest[:12]}" in check({"reference": "other.locate.png"})
    assert "cameras.top.locate.reference: " in check({"reference": "lost.png"})
    assert "unknown key; did you mean not_found?" in check(ours | {"not_fond": "reject"})
    assert "expected 'fault' or 'reject'" in check(ours | {"not_found": "pass"})
    assert "taught on pictures of 320×240 pixels, but the camera gives 128×128" in check(
        ours, "simulated://?seed=1&width=128&height=128"
    )


# Real parts.


@pytest.mark.slow
@pytest.mark.parametrize(("product", "turn"), [("toothbrush", 12), ("aliens", 10), ("bottle", 0)])
def test_known_motions_of_real_parts(shared_data: Path, product: str, turn: float) -> None:
    pictures = [read_image(file) for file in sorted((shared_data / product / "train/good").iterdir())[:12]]
    reference = teach(pictures, turn=20).reference
    assert (reference.symmetry == 0) == (product == "bottle")
    locator, random = Locator(reference), np.random.default_rng(0)
    errors = []
    for picture in pictures:
        before = locator.locate(picture)
        assert isinstance(before, Place)
        dx, dy, angle = *random.uniform(-20, 20, 2), random.uniform(-turn, turn)
        matrix = cv2.getRotationMatrix2D(reference.middle, -angle, 1)
        turned = matrix[:, :2] @ (before.dx, before.dy) + (dx, dy)
        matrix[:, 2] += (dx, dy)
        moved = cv2.warpAffine(
            picture, matrix, picture.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        found = locator.locate(moved)
        assert isinstance(found, Place), found
        errors.append((found.dx - turned[0], found.dy - turned[1], found.turn - before.turn - angle))
    middle = np.median(np.abs(errors), axis=0)
    assert (middle < (0.3, 0.3, 0.1)).all(), middle


# Training and evaluation.


def test_the_evaluation_compares_with_masks_where_the_part_lies(
    line_folder: Path, marked: tuple[Reference, list[Frame]]
) -> None:
    reference, pictures = marked
    folder = images(line_folder / "parts", pictures)
    samples = [Sample(file, None) for file in sorted(folder.iterdir())]
    judge = open_judge(line_folder / "brightness.engine", line_folder / "brightness.calibration.yaml")
    judge.trained = TrainedOn(ROI, None, CAMERA, reference)
    judged = judge_samples(judge, samples, None, None)
    assert judged.not_located == [2]  # judged as it lies
    assert judged.cut is None and judged.seen(1) == CAMERA
    heat = judged.heat(1, CAMERA)
    spot = np.argwhere(pictures[1][..., 0] > 240).mean(axis=0)
    assert heat.shape == CAMERA
    row, column = divmod(int(heat.argmax()), CAMERA.width)
    assert abs(row - spot[0]) < 16 and abs(column - spot[1]) < 16


@pytest.mark.slow
def test_a_model_takes_its_reference_along(
    tmp_path: Path, bracket: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    good = images(tmp_path / "good", [drawn("bracket", place, seed) for seed, place in enumerate(places(8))])
    write_reference(tmp_path / "part.locate.png", bracket, belt(0))
    write_reference(tmp_path / "other.locate.png", taught("square"), belt(0))

    def train(*arguments: object, code: int = 0) -> str:
        options = ["--data", good, "--locate", *arguments]
        ended = train_model([str(option) for option in options])
        said = capsys.readouterr().err
        assert ended == code, said
        return said.splitlines()[-1]

    model = tmp_path / "part.onnx"
    fitted = ("--method", "padim", "--image-size", 128, "--roi", ROI.option)
    train(tmp_path / "part.locate.png", "--out", model, *fitted)
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert trained_on(metadata)[:4] == (ROI, None, CAMERA, bracket)
    train(tmp_path / "part.locate.png", "--update", model)
    assert "was fitted with the reference" in train(tmp_path / "other.locate.png", "--update", model, code=2)
    cv2.imwrite(str(good / "999.png"), belt(7))
    said = train(tmp_path / "part.locate.png", "--out", model, *fitted, code=2)
    assert "999.png: no part was found" in said
