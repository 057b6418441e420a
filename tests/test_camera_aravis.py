"""GigE Vision over the loopback interface: Aravis on our side, its fake camera on the other."""

import gc
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from camera_rig import CameraRig, supervise
from line_rig import COMMANDS
from patience import PATIENCE_S

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings, Trigger
from daemon.capture.drivers.aravis import ArvCamera
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError
from pictures.frames import Size

SMALL: dict[str, Any] = {"width": 128, "height": 128}  # fits into the socket buffers of any machine
ADDRESS = "aravis://Aravis-Fake-IT01"
FAKE_CAMERA = "arv-fake-gv-camera-0.8"


@pytest.fixture(scope="module", autouse=True)
def _aravis() -> None:
    if shutil.which(FAKE_CAMERA) is None:
        pytest.skip("wants Debian's aravis-tools")
    gi = pytest.importorskip("gi", reason="wants pip install 'inspectd[aravis]'")
    try:
        gi.require_version("Aravis", "0.8")
    except ValueError:
        pytest.skip("wants Debian's gir1.2-aravis-0.8")


class FakeCamera:
    """Only one at a time: GigE Vision has one port."""

    def __init__(self, *options: str) -> None:
        self.command = [FAKE_CAMERA, "-i", "lo", "-s", "IT01", *options]
        self.start()
        give_up = time.monotonic() + 10
        while True:  # it does not say when it is ready
            try:
                open_camera(CameraSettings(ADDRESS)).close()
                break
            except CameraFailed:
                assert time.monotonic() < give_up

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def fake_camera(request: pytest.FixtureRequest) -> Iterator[FakeCamera]:
    camera = FakeCamera(*getattr(request, "param", ()))
    yield camera
    camera.kill()


def test_pictures_size_rate_and_features_are_as_asked(fake_camera: FakeCamera) -> None:
    settings = CameraSettings(
        ADDRESS, width=256, height=128, fps=50, features={"ExposureTimeAbs": 5000, "TriggerMode": False}
    )
    camera = open_camera(settings)
    assert camera.live
    assert camera.picture_size == Size(128, 256)
    stamps = []
    for _ in range(20):
        picture = camera.grab()
        assert picture is not None
        assert picture.pixels.shape == (128, 256, 3)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.max() > 0
        stamps.append(picture.device_ns or 0)
    camera.close()
    steps = np.diff(stamps) / 1e6
    assert (steps > 0).all()
    assert np.median(steps) == pytest.approx(20, rel=0.2)


def test_pixel_formats_become_bgr(fake_camera: FakeCamera) -> None:
    for pixel_format in ("Mono8", "RGB8", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8", "Mono16"):
        camera = open_camera(CameraSettings(ADDRESS, **SMALL, features={"PixelFormat": pixel_format}))
        picture = camera.grab()
        camera.close()
        assert picture is not None
        assert picture.pixels.shape == (128, 128, 3)
        grey = bool((picture.pixels[..., 0] == picture.pixels[..., 2]).all())
        assert grey == (pixel_format == "Mono8")  # of Mono16 another format is made


def test_a_camera_that_is_switched_off_and_on_again(fake_camera: FakeCamera) -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=ADDRESS, fps=50, **SMALL)
        await rig.until(lambda: len(rig.arrivals["top"]) > 20)
        assert rig.errors("top") == []
        fake_camera.kill()
        await rig.until_state("top", "failed")
        assert camera.error == f"{ADDRESS} is gone: it no longer answers"
        fake_camera.start()
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 20)
        assert camera.error is None

    assert len(supervise(story).errors("top")) == 1


# Of a thousand packets, forty are lost; a picture has twelve.
@pytest.mark.parametrize("fake_camera", [("-r", "40")], indirect=True)
def test_a_picture_that_does_not_arrive_whole_is_bad(fake_camera: FakeCamera) -> None:
    camera = open_camera(CameraSettings(ADDRESS, fps=50, **SMALL))
    bad = good = 0
    while bad < 3 or good < 3:
        try:
            assert camera.grab() is not None
            good += 1
        except BadPicture as error:
            # Of some pictures no packet arrives at all.
            assert "did not arrive whole" in str(error) or "was lost between" in str(error)
            bad += "did not arrive whole" in str(error)
    camera.close()


def test_pictures_that_found_no_buffer_are_counted(fake_camera: FakeCamera) -> None:
    camera = open_camera(CameraSettings(ADDRESS, fps=50, width=64, height=64))
    stamps, lost = [], 0
    first = camera.grab()
    assert first is not None and first.device_ns is not None
    time.sleep(0.6)  # thirty pictures for eight buffers
    while lost == 0 or len(stamps) < 20:
        try:
            picture = camera.grab()
            assert picture is not None and picture.device_ns is not None
            stamps.append(picture.device_ns)
        except BadPicture as error:
            assert "lost between the camera and this machine" in str(error)
            lost += 1
    camera.close()
    captured = round((stamps[-1] - first.device_ns) / 20e6)
    # The fake camera keeps its rate only roughly.
    assert len(stamps) + lost == pytest.approx(captured, rel=0.25)


def test_what_the_camera_cannot_do_is_an_input_error(fake_camera: FakeCamera) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"features": {"Exposure": 1}}, "features.Exposure: the camera has no such feature"),
        ({"features": {"ExposureTimeAbs": "long"}}, "features.ExposureTimeAbs: found 'long'"),
        ({"features": {"PixelFormat": "Mono99"}}, "Mono99"),
        ({"width": 50_000}, "width: found 50000; the camera has 1 to "),
    ]
    for settings, expected in wrong:
        with pytest.raises(InputError) as refused:
            open_camera(CameraSettings(ADDRESS, **settings))
        assert str(refused.value).startswith(ADDRESS)
        assert expected in str(refused.value)


def test_a_camera_that_is_not_there_fails_and_the_others_are_named(fake_camera: FakeCamera) -> None:
    with pytest.raises(CameraFailed, match=r"aravis://Nobody does not open: .*; found Aravis-Fake-IT01"):
        open_camera(CameraSettings("aravis://Nobody"))


def test_inspectctl_records_from_it(fake_camera: FakeCamera, tmp_path: object) -> None:
    open_camera(CameraSettings(ADDRESS, **SMALL)).close()  # the size stays set in the device
    done = subprocess.run(
        [COMMANDS / "inspectctl", "record", ADDRESS, "--out", f"{tmp_path}/good", "--count", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "saved 2 of 2" in done.stdout


def test_a_hardware_trigger_is_set_and_read_back(fake_camera: FakeCamera) -> None:
    wrong = {
        "strobe": (Trigger("hardware", strobe="Line2"), "the camera has no feature LineSelector"),
        "line": (Trigger("hardware", line="Line9"), "Line9"),
        "edge": (Trigger("hardware", edge="falling"), "FallingEdge"),
    }
    for key, (refused_trigger, expected) in wrong.items():
        said = ""
        try:
            ArvCamera(CameraSettings(ADDRESS, **SMALL, trigger=refused_trigger))
        except InputError as error:  # not pytest's way: what keeps the traceback keeps the camera
            said = str(error)
        gc.collect()
        assert said.startswith(f"{ADDRESS}: trigger.{key}: ")
        assert expected in said and "\n" not in said
    trigger = Trigger("hardware", line="Line0", exposure_us=4000)
    camera = ArvCamera(CameraSettings(ADDRESS, **SMALL, trigger=trigger))
    device = camera._camera.get_device()
    kept = {
        name: device.get_string_feature_value(name)
        for name in ("TriggerSelector", "TriggerMode", "TriggerSource", "TriggerActivation")
    }
    assert kept == {
        "TriggerSelector": "FrameStart",
        "TriggerMode": "On",
        "TriggerSource": "Line0",
        "TriggerActivation": "RisingEdge",
    }
    assert camera.exposure_us == 4000
    camera.close()


def test_a_camera_that_waits_for_its_trigger_is_shown_to_be_silent(
    fake_camera: FakeCamera, tmp_path: Path
) -> None:
    config = tmp_path / "line3.yaml"
    trigger = {"by": "hardware", "line": "Software", "exposure_us": 4000, "silent_after_s": 1}
    camera = {"source": ADDRESS, **SMALL, "trigger": trigger}
    files = {"engine": "line3.engine", "calibration": "line3.calibration.yaml"}
    line = {"line": "line3", "publish": "tcp://127.0.0.1:5555", "cameras": {"top": camera}}
    config.write_text(yaml.safe_dump(line | files))
    done = subprocess.run(
        [COMMANDS / "inspectctl", "camera", "test", "top", "--config", config, "--seconds", "5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "fault: no trigger for 1 s" in said
    lines = [line for line in said if line.startswith("no picture for ")]
    assert all(line.endswith(" s  no trigger for 1 s  taken 0  faults 1") for line in lines) and lines
    assert "0 pictures, 0 taken, 1 faults" in said[-1]


@pytest.mark.parametrize("asked", ["trigger", "features"])
def test_each_trigger_gives_one_picture_and_nothing_else_does(fake_camera: FakeCamera, asked: str) -> None:
    """The fake camera has no wire; its other source of triggers is a command."""
    given: dict[str, Any] = (
        {"trigger": Trigger("hardware", line="Software")}
        if asked == "trigger"
        # Which trigger it is, FrameStart, is the camera's own default.
        else {"features": {"TriggerSource": "Software", "TriggerMode": True}}
    )
    camera = ArvCamera(CameraSettings(ADDRESS, fps=20, **SMALL, **given))
    for _ in range(3):
        assert camera._stream.timeout_pop_buffer(200_000) is None  # four pictures, were it running freely
        camera._camera.software_trigger()
        assert camera.grab() is not None
    camera.close()
