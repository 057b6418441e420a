"""Video files: each picture once, and what is damaged or cut short is no orderly end."""

import os
from pathlib import Path

import pytest
from camera_rig import CameraRig, supervise
from line_rig import running, write_config
from video_files import FORMATS, PICTURES, encoded, write_video

from daemon.capture.drivers import BadPicture, CameraSettings
from daemon.capture.drivers.nal_units import has_impossible_bytes
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError


def read(
    source: Path | str, *, first_frame: int = 1, most: int = 1000, loop: bool = False
) -> list[int | str]:
    """Read a file as its camera does; each picture is its number, or what is wrong with it."""
    camera = open_camera(CameraSettings(str(source), loop=loop), first_frame=first_frame)
    found: list[int | str] = []
    try:
        while len(found) < most:
            try:
                picture = camera.grab()
            except BadPicture as bad:
                found.append(str(bad))
                continue
            if picture is None:
                break
            found.append(round((float(picture.pixels.mean()) - 5.5) / 10) + 1)
    finally:
        camera.close()
    return found


@pytest.fixture(params=FORMATS)
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_video(tmp_path / request.param)


def test_each_picture_comes_once_and_a_loop_begins_again(video: Path) -> None:
    once = list(range(1, PICTURES + 1))
    assert read(video) == once
    assert read(video, loop=True, most=50) == [*once, *once, *once][:50]


def test_after_a_restart_image_n_is_frame_n(video: Path) -> None:
    assert read(video, first_frame=8) == list(range(8, PICTURES + 1))
    assert read(video, first_frame=PICTURES + 1) == []
    assert read(video, first_frame=48, loop=True, most=15) == [*range(8, PICTURES + 1), 1, 2]


@pytest.mark.parametrize("name", ["parts.ts", "parts.mjpeg"])
def test_a_killed_process_costs_one_picture(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / name)

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=str(source), fps=20)
        await rig.until(lambda: len(rig.arrivals["top"]) >= 8)
        camera._kill()
        await rig.until(lambda: camera.state == "ended")

    rig = supervise(story)
    assert rig.frames("top") == list(range(1, PICTURES + 1))
    assert 1 <= len(rig.errors("top")) <= 2


def test_a_relative_name_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "cam1:0800 50%d.mkv")
    monkeypatch.chdir(tmp_path)
    assert read("cam1:0800 50%d.mkv") == list(range(1, PICTURES + 1))


def test_pictures_after_a_lost_one_are_bad_up_to_the_next_key_picture(tmp_path: Path) -> None:
    found = read(write_video(tmp_path / "parts.h264", lost=[7]))
    assert found[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert [isinstance(one, str) for one in found[7:9]] == [True, True]
    assert "Frame num gap" in str(found[7])
    assert found[9:] == list(range(11, PICTURES + 1))


@pytest.mark.parametrize("entropy", ["cabac=1", "cabac=0"])
def test_a_damaged_picture_leaves_nothing_in_those_after_the_next_key_picture(
    tmp_path: Path, entropy: str
) -> None:
    """FFmpeg carries what it had half decoded into the next picture, even an independent one."""
    source = tmp_path / "parts.h264"
    _, packets = encoded("libx264", **{"x264-params": entropy})
    units = [bytes(packet) for packet in packets]

    def pixels(data: list[bytes]) -> list[bytes | None]:
        source.write_bytes(b"".join(data))
        camera, found = open_camera(CameraSettings(str(source))), list[bytes | None]()
        while len(found) < PICTURES:
            try:
                picture = camera.grab()
                assert picture is not None
                found.append(picture.pixels.tobytes())
            except BadPicture:
                found.append(None)
        return found

    whole = pixels(units)
    for at in range(20, len(units[6]) - 4, 7):
        broken = units[6][:at] + b"\xa5\x5a\xa5\x5a" + units[6][at + 4 :]
        found = pixels([*units[:6], broken, *units[7:]])
        assert found[:6] == whole[:6]
        assert found[10:] == whole[10:]


@pytest.mark.parametrize("name", ["parts.ts", "parts.avi", "parts.mp4", "cam1:0800 50%d.mkv"])
def test_a_video_that_is_cut_short_does_not_end_in_order(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / name)
    os.truncate(source, source.stat().st_size * 2 // 3)
    with pytest.raises(InputError, match=f"{name}: "):
        read(source)


@pytest.mark.parametrize("name", ["parts.h264", "parts.mjpeg"])
def test_the_last_picture_of_a_stream_that_is_cut_short_is_bad(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / name)
    os.truncate(source, source.stat().st_size - 8)
    found = read(source)
    assert found[: PICTURES - 1] == list(range(1, PICTURES))
    assert "the picture" in str(found[-1])


def test_the_line_says_so_and_ends_with_an_error(line_folder: Path) -> None:
    source = write_video(line_folder / "parts.avi")
    os.truncate(source, source.stat().st_size * 2 // 3)
    with running(write_config(line_folder, {"top": {"source": source.name, "fps": 20}})) as line:
        errors = line.until_end()
    assert line.process.returncode == 2
    assert "parts.avi: is damaged or cut short after picture" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    last = line.verdicts[-1]  # the first ones may have gone before the subscription came
    assert (last.decision, last.reason) == ("fault", "camera")
    assert [verdict.frame for verdict in line.verdicts] == list(range(line.verdicts[0].frame, last.frame + 1))


@pytest.mark.parametrize(("name", "content"), [("empty.mp4", b""), ("notes.txt", b"no video\n" * 50)])
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: is (not a video|empty)") as refused:
        read(tmp_path / name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("data", "length_bytes", "impossible"),
    [
        (b"\0\0\0\1\x65abc\0\0\1\x41def", 0, False),
        (b"\0\0\1\x65abc\0\0\3\1def\0\0", 0, False),
        (b"\0\0\1\x65abc\0\0\0\0\0def", 0, True),
        (b"\0\0\1\x65abc\0\0\2", 0, True),
        (b"\0\0\1\x65abc\0\0\3\x09", 0, True),
        (b"\0\0\0\4\x65abc\0\0\0\3\x41de", 4, False),
        (b"\0\0\0\7\x65\0\0\0abc", 4, True),
        (b"\0\0\0\5\x65abc", 4, True),
        (b"\0\0\0\4\x65abc\0", 4, True),
    ],
)
def test_bytes_that_no_encoder_writes(data: bytes, length_bytes: int, impossible: bool) -> None:
    assert has_impossible_bytes(data, length_bytes) is impossible
