"""Cameras on the network: what they send is judged as it was seen, or is a fault, and errors say why."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from camera_rig import CameraRig, supervise
from http_camera import PASSWORD, USER, HttpCamera, http_camera, jpeg, level_of

from daemon.capture.drivers import BadPicture, Camera, CameraFailed, CameraSettings, video_reader
from daemon.capture.drivers.jpeg import decode_jpeg
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError


@pytest.fixture
def web() -> Iterator[HttpCamera]:
    with http_camera() as camera:
        yield camera


def grabbed(camera: Camera, count: int) -> list[int | str]:
    """Grab pictures; each is its grey level, or what is wrong with it."""
    found: list[int | str] = []
    for _ in range(count):
        try:
            taken = camera.grab()
            assert taken is not None
            found.append(level_of(taken.pixels))
        except BadPicture as bad:
            found.append(str(bad))
    camera.close()
    return found


def damaged(whole: bytes, how: str) -> bytes:
    middle = len(whole) // 2
    return {
        "cut": whole[:middle],
        "no end marker": whole[:-2],
        "zeros": whole[:middle] + bytes(300) + whole[middle + 300 :],
        "gap": whole[:middle] + whole[middle + 500 :],
        "two in one": whole[:middle] + whole,
    }[how]


@pytest.mark.parametrize("how", ["cut", "no end marker", "zeros", "gap", "two in one"])
def test_a_damaged_jpeg_of_a_stream_is_bad_and_its_neighbours_are_good(web: HttpCamera, how: str) -> None:
    web.parts = lambda: iter([jpeg(20), jpeg(40), damaged(jpeg(60), how), jpeg(80), jpeg(100)])
    found = grabbed(open_camera(CameraSettings(web.address("/stream"))), 5)
    assert found[:2] == [20, 40]
    assert "the picture is a damaged JPEG" in str(found[2])
    assert found[3:] == [80, 100]


def test_an_intact_jpeg_has_the_pixels_that_opencv_reads() -> None:
    expected = cv2.imdecode(np.frombuffer(jpeg(80), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode_jpeg(jpeg(80)), expected)


@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize(
    "options",
    [(), (cv2.IMWRITE_JPEG_OPTIMIZE, 1), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_QUALITY, 5)],
)
def test_a_picture_without_anything_in_it_is_whole(level: int, options: tuple[int, ...]) -> None:
    """With tables of its own its data may be zeros alone."""
    for shape in ((256, 256), (256, 256, 3)):
        flat = np.full(shape, level, np.uint8)
        assert np.ptp(decode_jpeg(cv2.imencode(".jpg", flat, options)[1].tobytes())) <= 1


def test_a_few_zeros_are_told_where_a_decoder_takes_them_for_values() -> None:
    whole, told = jpeg(60, 96), 0
    for at in range(700, len(whole) - 100, 50):
        with pytest.raises(BadPicture):
            decode_jpeg(whole[:at] + bytes(40) + whole[at + 40 :])
        told += 1
    assert told > 50


def test_a_stream_that_ends_says_so(web: HttpCamera) -> None:
    web.parts = lambda: iter([jpeg(20)])
    camera = open_camera(CameraSettings(web.address("/stream")))
    camera.grab()
    with pytest.raises(CameraFailed, match="/stream stopped delivering frames"):
        camera.grab()
    camera.close()


def test_a_stream_that_changes_its_size_is_three_faults_and_a_restart(web: HttpCamera) -> None:
    def parts() -> Iterator[bytes]:
        for index in range(500):
            yield jpeg(50 + index % 50, 64 if index < 5 else 48)
            time.sleep(0.02)

    web.parts = parts

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=web.address("/stream"))
        await rig.until_state("top", "failed")
        assert camera.error == "its pictures have another size: a picture of 48×48 pixels; expected 64×64"
        await rig.until_state("top", "running")

    rig = supervise(story)
    assert rig.errors("top")[:3] == ["a picture of 48×48 pixels; expected 64×64"] * 3


def test_each_request_of_a_snapshot_address_is_a_fresh_picture_at_a_pace(web: HttpCamera) -> None:
    web.snapshot = lambda asked: jpeg(20 + asked % 100)

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=web.address("/snapshot"), fps=20)
        await rig.until(lambda: len(rig.arrivals["top"]) >= 12)
        assert camera.state == "running"

    rig = supervise(story)
    assert rig.errors("top") == []
    captured = [arrival.captured_ns for arrival in rig.arrivals["top"]]
    assert (captured[-1] - captured[0]) / 1e9 >= 0.9 * (len(captured) - 1) / 20 - 0.05


def test_a_damaged_snapshot_is_bad_and_the_next_is_asked_for(web: HttpCamera) -> None:
    answers = [jpeg(20), jpeg(40)[:-300], b"rubbish" * 99, jpeg(80)]
    web.snapshot = lambda asked: answers[asked - 1]
    camera = open_camera(CameraSettings(web.address("/snapshot")))
    assert not camera.live
    found = grabbed(camera, 4)
    assert found[0] == 20
    assert "damaged JPEG" in str(found[1])
    assert "is not a whole picture" in str(found[2])
    assert found[3] == 80


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/locked", "it answers 401: user or password is missing or wrong"),
        ("/forbidden", "it answers 403"),
        ("/nothing", "it answers 404: there is nothing at this path"),
        ("/broken", "it answers with an error of its own, 5xx"),
        ("/page", "not a video that FFmpeg can read"),
    ],
)
def test_a_stream_that_does_not_open_says_why(web: HttpCamera, path: str, why: str) -> None:
    with pytest.raises(CameraFailed) as failed:
        open_camera(CameraSettings(web.address(path)))
    assert str(failed.value).startswith(f"{web.address(path)} does not open: {why}")
    assert "\n" not in str(failed.value)


def test_a_port_without_a_server_refuses() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"rtsp://127.0.0.1:{taken.getsockname()[1]}/stream"
        with pytest.raises(CameraFailed, match=f"{address} does not open: connection refused"):
            open_camera(CameraSettings(address))


def test_a_server_that_does_not_answer_is_given_up(web: HttpCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reader, "_TIMEOUT_S", 0.3)
    with pytest.raises(CameraFailed, match=r"does not open: no answer within 0\.3 s"):
        open_camera(CameraSettings(web.address("/silent")))


def test_a_stream_that_stalls_is_given_up(web: HttpCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    def parts() -> Iterator[bytes]:
        yield from [jpeg(20), jpeg(40), jpeg(60)]
        web.silent.wait(30)

    web.parts = parts
    monkeypatch.setattr(video_reader, "_TIMEOUT_S", 0.5)
    camera = open_camera(CameraSettings(web.address("/stream")))
    with pytest.raises(CameraFailed, match=r"stopped delivering frames: no answer within 0\.5 s"):
        grabbed(camera, 4)
    camera.close()


def test_a_password_may_hold_anything_when_it_is_percent_encoded(web: HttpCamera) -> None:
    web.parts = lambda: iter([jpeg(20), jpeg(40)])
    address = web.address("/locked").replace("://", f"://{USER}:{quote(PASSWORD, safe='')}@")
    assert grabbed(open_camera(CameraSettings(address)), 2) == [20, 40]


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://admin:Hunter2@127.0.0.1:1/stream",
        "http://127.0.0.1:1/video?user=admin&pwd=Hunter2&x=1",
        "http://127.0.0.1:1/video?token=Hunter2",
        "ftp://admin:Hunter2@camera/video",
    ],
)
def test_no_password_is_in_an_error(source: str) -> None:
    with pytest.raises((CameraFailed, InputError)) as failed:
        open_camera(CameraSettings(source))
    assert "Hunter2" not in str(failed.value)
    assert "***" in str(failed.value)


def test_no_password_is_in_what_the_daemon_hears(tmp_path: Path) -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source="rtsp://admin:Hunter2@127.0.0.1:1/stream")
        await rig.until_state("top", "failed")
        assert camera.error == "rtsp://admin:***@127.0.0.1:1/stream does not open: connection refused"

    supervise(story)
