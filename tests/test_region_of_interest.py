"""The region of interest is one fact: what a recording cut out, model, calibration and config agree on it."""

import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_rig import COMMANDS, running, write_config

from calibration.calibration_file import load_calibration
from calibration.cli import main as calibrate
from daemon.inspectctl.cli import main as inspectctl
from engine_runtime.engine_file import read_engine, write_engine
from foundation.errors import InputError
from models import training_images
from models.commands import efficientad
from models.datasets.open import open_data_set
from pictures.frames import Roi, Size
from pictures.image_file import read_image
from pictures.recording_note import RecordingNote, note_of, with_note
from pictures.region import Seen, seen_region
from pictures.trained_on import TrainedOn, as_metadata, trained_on

SOURCE = "simulated://?seed=4&width=160&height=128"
ROI = Roi(16, 0, 128, 128)
CAMERA = Size(128, 160)


def command(*arguments: object, code: int = 0) -> str:
    """Run a command; give what it says: on stdout, or where it is to fail, its one line on stderr."""
    name, *words = map(str, arguments)
    if name == "inspectd":  # opens cameras
        done = subprocess.run([COMMANDS / name, *words], capture_output=True, text=True, check=False)
        ended, said, errors = done.returncode, done.stdout, done.stderr
    else:
        main = {"calibrate": calibrate, "inspectctl": inspectctl}[name]
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            ended = main(words)
        said, errors = out.getvalue(), err.getvalue()
    assert ended == code, errors
    if code == 0:
        return said
    (line,) = [line for line in errors.splitlines() if "it/s]" not in line and line]
    return line


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames twice: cut out, and whole."""
    folder = tmp_path_factory.mktemp("recorded")
    command("inspectctl", "record", SOURCE, "--count", 24, "--out", folder / "cut", "--roi", ROI.option)
    command("inspectctl", "record", SOURCE, "--count", 24, "--out", folder / "whole")
    return folder


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def noted(path: Path, roi: Roi | None, size: Size = CAMERA) -> Path:
    height, width = size if roi is None else (roi.height, roi.width)
    png = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()
    path.write_bytes(with_note(png, RecordingNote("/dev/video0", size, roi, "2026-01-31T12:00:00Z", "1")))
    return path


def test_a_recording_says_what_it_cut_out(recorded: Path, tmp_path: Path) -> None:
    cut, whole = note_of(pictures(recorded / "cut")[0]), note_of(pictures(recorded / "whole")[0])
    assert cut is not None and whole is not None
    assert (cut.roi, cut.camera_picture, cut.source) == (ROI, CAMERA, SOURCE)
    assert (whole.roi, whole.camera_picture) == (None, CAMERA)
    copy = tmp_path / "sorted" / "scratched.png"
    copy.parent.mkdir()
    shutil.copy(pictures(recorded / "cut")[0], copy)
    assert note_of(copy) == cut
    pixels = read_image(copy)
    assert np.array_equal(pixels, read_image(pictures(recorded / "whole")[0])[:, 16:144])
    cv2.imwrite(str(copy), pixels)  # another program's file brings none
    assert note_of(copy) is None
    command(
        "inspectctl",
        "record",
        recorded / "cut",
        "--out",
        tmp_path / "again",
        "--roi",
        "4,8,50,60",
        "--count",
        1,
    )
    again = note_of(tmp_path / "again/frame-000001.png")
    assert again is not None
    assert (again.roi, again.camera_picture) == (Roi(20, 8, 50, 60), CAMERA)


def test_a_forgotten_or_doubled_region_is_found_at_each_step(recorded: Path, line_folder: Path) -> None:
    engine, calibration = line_folder / "brightness.engine", line_folder / "brightness.calibration.yaml"
    calibration_of = ("calibrate", engine, "-o", calibration, "--good")
    said = command(*calibration_of, recorded / "cut", "--roi", ROI.option, code=2)
    assert "was recorded with the region 128×128+16+0, and --roi 16,0,128,128 would cut it once more" in said
    mixed = line_folder / "mixed"
    shutil.copytree(recorded / "cut", mixed)
    shutil.copy(pictures(recorded / "whole")[0], mixed / "whole.png")
    said = command(*calibration_of, mixed, code=2)
    assert "whole.png: shows the whole of a picture of 160×128, but " in said
    assert "shows the region 128×128+16+0 of a picture of 160×128" in said
    manifest, payload = read_engine(engine)
    for trained, good in (
        (TrainedOn(Roi(8, 0, 128, 128), None), "cut"),
        (TrainedOn(None, None, CAMERA), "cut"),
        (TrainedOn(ROI, None, Size(256, 320)), "whole"),
    ):
        write_engine(engine, manifest.model_copy(update={"model_metadata": as_metadata(trained)}), payload)
        assert "but the model was trained on the " in command(*calibration_of, recorded / good, code=2)
    write_engine(
        engine,
        manifest.model_copy(update={"model_metadata": as_metadata(TrainedOn(ROI, None, CAMERA))}),
        payload,
    )
    said = command(*calibration_of, recorded / "whole", "--roi", "8,0,128,128", code=2)
    assert "--roi: found 8,0,128,128, but the model was trained on the region 128×128+16+0" in said
    thresholds = []
    for good in ("whole", "cut"):  # cut by calibrate, or by the recording: the same
        command(*calibration_of, recorded / good)
        made = load_calibration(calibration, manifest.payload_sha256, manifest.maps)
        assert (made.roi, made.camera_picture) == (ROI, CAMERA)
        thresholds.append(made.threshold)
    assert thresholds[0] == thresholds[1]

    def check(camera: dict[str, Any], code: int) -> str:
        return command(
            "inspectd", "--check", "--config", write_config(line_folder, {"top": camera}), code=code
        )

    region = ROI._asdict()
    assert "cameras.top.roi: found the whole picture, expected 128×128+16+0" in check({"source": SOURCE}, 2)
    assert "cameras.top.roi: found 128×128+8+0, expected" in check(
        {"source": SOURCE, "roi": region | {"x": 8}}, 2
    )
    assert "in order" in check({"source": SOURCE, "roi": region}, 0)
    assert "in order" in check({"source": str(recorded / "cut")}, 0)
    assert "in order" in check({"source": str(recorded / "whole"), "roi": region}, 0)
    assert "would cut it once more" in check({"source": str(recorded / "cut"), "roi": region}, 2)
    assert "found the whole picture" in check({"source": str(recorded / "whole")}, 2)


def test_a_calibration_on_whole_pictures_wants_no_region(recorded: Path, line_folder: Path) -> None:
    engine, calibration = line_folder / "brightness.engine", line_folder / "brightness.calibration.yaml"
    command("calibrate", engine, "-o", calibration, "--good", recorded / "whole")
    config = write_config(line_folder, {"top": {"source": SOURCE, "roi": ROI._asdict()}})
    said = command("inspectd", "--check", "--config", config, code=2)
    assert "cameras.top.roi: found 128×128+16+0, expected none, the whole picture, with which" in said
    whole = {"x": 0, "y": 0, "width": 160, "height": 128}
    for camera in ({"source": SOURCE}, {"source": SOURCE, "roi": whole}):
        config = write_config(line_folder, {"top": camera})
        assert "in order" in command("inspectd", "--check", "--config", config)


def test_training_knows_what_its_images_show(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(recorded / "cut"), "--out", str(tmp_path / "m.pt"), "--steps", "1"]
    assert efficientad([*arguments, "--roi", ROI.option]) == 2
    assert "would cut it once more: leave --roi out" in capsys.readouterr().err.splitlines()[-1]
    split = training_images.load(open_data_set(recorded / "cut"), Size(128, 128), None, 0)
    assert split.seen == Seen(None, ROI, CAMERA)
    whole = training_images.load(open_data_set(recorded / "whole"), Size(128, 128), ROI, 0)
    assert whole.seen == Seen(ROI, ROI, CAMERA)
    assert (whole.training == split.training).all()


def test_images_from_elsewhere_go_on_working(tmp_path: Path) -> None:
    plain = tmp_path / "plain.png"
    cv2.imwrite(str(plain), np.zeros((100, 120, 3), np.uint8))
    roi = Roi(10, 20, 30, 40)
    assert seen_region([plain], None) == Seen(None, None, None)
    assert seen_region([plain], roi) == Seen(roi, roi, None)
    assert seen_region([plain], None, TrainedOn(roi, None)) == Seen(roi, roi, None)
    # Cut out already, and written again by another program.
    assert seen_region([plain], None, TrainedOn(Roi(5, 5, 120, 100), None)) == Seen(
        None, Roi(5, 5, 120, 100), None
    )
    assert seen_region([plain, noted(tmp_path / "n.png", roi)], None) == Seen(None, roi, CAMERA)


def test_a_region_that_is_the_whole_picture_is_none(tmp_path: Path) -> None:
    whole, everything = noted(tmp_path / "w.png", None), Roi(0, 0, 160, 128)
    assert seen_region([whole], everything) == seen_region([whole], None) == Seen(None, None, CAMERA)
    cut = noted(tmp_path / "c.png", ROI)
    assert seen_region([cut], Roi(0, 0, 128, 128)) == Seen(None, ROI, CAMERA)  # as tiles need it
    with pytest.raises(InputError, match="once more"):
        seen_region([cut], Roi(0, 0, 127, 128))
    # A model of an older version says its region, and not of which picture.
    assert seen_region([cut], None, TrainedOn(ROI, None)) == Seen(None, ROI, CAMERA)


SIDES = st.integers(1, 65_535)


def test_a_reject_in_the_archive_says_what_it_shows(line_folder: Path, tmp_path: Path) -> None:
    belt = cv2.VideoWriter(str(line_folder / "belt.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, CAMERA[::-1])
    for _ in range(3):
        belt.write(np.full((*CAMERA, 3), 255, np.uint8))
    belt.release()
    cameras = {"top": {"source": "belt.avi", "roi": ROI._asdict()}, "side": {"source": "belt.avi"}}
    with running(write_config(line_folder, cameras, archive={"folder": "rejects"})) as line:
        line.until_end()
    for camera, roi in (("top", ROI), ("side", None)):
        frames = sorted((line_folder / "rejects").glob(f"*-{camera}-*.png"))
        note = note_of(frames[0])
        assert note is not None
        assert (note.roi, note.camera_picture, note.source) == (roi, CAMERA, camera)
        assert seen_region(frames, None) == Seen(None, roi, CAMERA)
    with pytest.raises(InputError, match="shows the whole of a picture of 160×128 in another size"):
        seen_region(frames, ROI)
    kept = tmp_path / "kept"
    kept.mkdir()
    shutil.copy(frames[0], kept)
    said = command("inspectctl", "record", kept, "--out", tmp_path / "cut", "--roi", "0,0,9,9", code=2)
    assert "shows its camera's picture in another size" in said


@given(
    roi=st.none() | st.builds(Roi, st.integers(0, 65_535), st.integers(0, 65_535), SIDES, SIDES),
    size=st.builds(Size, SIDES, SIDES),
    source=st.text(max_size=50),
)
def test_what_is_noted_is_read(
    tmp_path_factory: pytest.TempPathFactory, roi: Roi | None, size: Size, source: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "noted.png"
    note = RecordingNote(source, size, roi, "2026-01-31T12:00:00Z", "1.0")
    png = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    path.write_bytes(with_note(png, note))
    assert note_of(path) == note
    assert read_image(path).shape == (2, 2, 3)
    assert trained_on(as_metadata(TrainedOn(roi, None, size))) == TrainedOn(roi, None, size)


@given(st.data())
def test_a_damaged_note_is_none_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = noted(tmp_path_factory.getbasetemp() / "damaged.png", ROI)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        note_of(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_folder_is_not_recorded_into_itself(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "again").mkdir()
    for out in (tmp_path, tmp_path / "again"):
        said = command("inspectctl", "record", tmp_path, "--out", out, "--count", 1, code=2)
        assert "lies in the folder that is recorded" in said
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a.png"]
