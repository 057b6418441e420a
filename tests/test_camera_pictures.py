"""Pictures that show no part, and devices whose time or size is wrong: rehearsed by the simulated camera."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_rig import CameraRig, supervise
from line_rig import running, write_config

from daemon.capture.drivers import CameraFailed, CameraSettings
from daemon.capture.drivers.open import open_camera
from daemon.capture.drivers.simulated.camera import SimulatedCamera
from foundation.errors import InputError

BELT = "simulated://?width=64&height=64&cached=4"


def until_ended(**settings: object) -> CameraRig:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", **settings)
        await rig.until(lambda: camera.state == "ended")

    return supervise(story)


def faulty(rig: CameraRig) -> list[int]:
    return [arrival.frame for arrival in rig.arrivals["top"] if arrival.error is not None]


def test_black_pictures_are_faults_until_a_good_one_comes() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=f"{BELT}&trouble=black@6", fps=20, black_below=5)
        await rig.until(lambda: len(rig.arrivals["top"]) == 8)
        assert camera.error == "black: its mean grey level 0.0 is below 5"
        assert camera.state == "running"
        await rig.until(lambda: len(rig.arrivals["top"]) == 18)
        assert camera.error is None

    rig = supervise(story)
    assert faulty(rig) == list(range(6, 16))
    assert {arrival.slot for arrival in rig.arrivals["top"] if arrival.error} == {None}
    assert rig.arrivals["top"][5].part == "000001 good"


def test_a_frozen_camera_is_stalled_restarted_and_its_repeated_pictures_are_faults() -> None:
    rig = until_ended(source=f"{BELT}&parts=40&trouble=frozen@20", fps=100, frozen_after=4)
    # The fourth of the same pictures, and one number to tell of the restart.
    assert faulty(rig) == [23, 24]
    assert set(rig.errors("top")) == {"frozen: the same picture 4 times"}
    assert [state for state, _ in rig.states["top"]] == [
        *("opening", "running", "stalled", "failed", "opening", "running", "ended")
    ]


def test_a_camera_that_is_still_frozen_after_the_restart_passes_no_part(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "same.png"), np.full((64, 64, 3), 90, np.uint8))

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=str(tmp_path), loop=True, fps=50, frozen_after=5)
        await rig.until(lambda: [entry[0] for entry in rig.states["top"]].count("stalled") == 3)
        assert faulty(rig)[0] == 5
        assert all(arrival.error for arrival in rig.arrivals["top"][4:])
        cv2.imwrite(str(tmp_path / "same.png"), np.full((64, 64, 3), 91, np.uint8))
        await rig.until(lambda: camera.error is None)

    supervise(story)


def test_noise_is_not_frozen() -> None:
    assert faulty(until_ended(source="simulated://?width=64&height=64&parts=30", frozen_after=2)) == []


def test_pictures_of_another_size_are_faults_and_the_camera_is_opened_anew() -> None:
    rig = until_ended(source=f"{BELT}&parts=30&trouble=resized@10", fps=100)
    assert faulty(rig) == [10, 11, 12, 13]
    assert rig.errors("top")[0] == "a picture of 32×32 pixels; expected 64×64"


def test_a_camera_that_comes_back_with_another_size_stays_failed(tmp_path: Path) -> None:
    video = tmp_path / "belt.avi"
    write_video(video, 64)

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=str(video), loop=True, fps=50)
        await rig.until(lambda: len(rig.arrivals["top"]) > 5)
        write_video(video, 128)
        rig.cameras["top"]._kill()
        await rig.until_state("top", "failed")
        captured = camera.captured
        for _ in range(2):
            await rig.until_state("top", "failed")
            assert camera.error == (
                "delivers pictures of 128×128 pixels, no longer of 64×64, for which crop and calibration "
                "were made"
            )
        assert all(arrival.error for arrival in rig.arrivals["top"][captured:])
        write_video(video, 64)
        await rig.until_state("top", "running")

    supervise(story)


def write_video(path: Path, side: int) -> None:
    partial = path.with_name(f"partial-{path.name}")
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"MJPG"), 25, (side, side))
    for index in range(10):
        writer.write(np.full((side, side, 3), index * 20, np.uint8))
    writer.release()
    partial.replace(path)


def test_a_folder_may_hold_pictures_of_all_sizes(tmp_path: Path) -> None:
    for index, side in enumerate((64, 128, 32, 96)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((side, side, 3), 90, np.uint8))
    assert faulty(until_ended(source=str(tmp_path))) == []


def test_a_timestamp_that_goes_back_is_a_fault() -> None:
    rig = until_ended(source=f"{BELT}&parts=20&trouble=backwards@10")
    assert faulty(rig) == [10]
    assert rig.errors("top") == ["the device's timestamp goes back by 999 ms"]


def test_a_camera_that_leaks_is_restarted_between_two_frames() -> None:
    async def story(rig: CameraRig) -> None:
        rig.start("top", source=f"{BELT}&trouble=leak@10", fps=20, max_mb=400)
        await rig.until_state("top", "failed")
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 5)

    rig = supervise(story)
    assert len(rig.errors("top")) == 1
    assert "MB, more than max_mb 400" in rig.errors("top")[0]


def test_a_crash_and_a_hang_cost_one_frame_each_and_the_belt_goes_on() -> None:
    source = f"{BELT}&parts=60&trouble=crash@20&trouble=hang@40"
    rig = until_ended(source=source, fps=100, stalled_after_s=1)
    assert faulty(rig) == [20, 40]
    assert rig.errors("top") == ["its process was killed by SIGABRT", "delivered nothing for 1 s"]
    parts = [arrival.part for arrival in rig.arrivals["top"] if arrival.part]
    assert len(parts) == 58


def test_a_picture_that_kills_its_reader_does_not_come_again(tmp_path: Path) -> None:
    """A restarted folder goes on behind the picture at which its process died: frame N is picture N."""
    for index in range(30):
        cv2.imwrite(str(tmp_path / f"{index:02d}.png"), np.full((64, 64, 3), 90, np.uint8))

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=str(tmp_path), fps=50)
        await rig.until(lambda: len(rig.arrivals["top"]) == 10)
        camera._kill()
        await rig.until(lambda: camera.state == "ended")

    rig = supervise(story)
    assert len(rig.arrivals["top"]) == 30
    for arrival in rig.arrivals["top"]:
        assert arrival.error or arrival.part == f"{arrival.frame - 1:02d}.png"


def test_the_line_is_degraded_while_its_camera_is_black(line_folder: Path) -> None:
    camera = {"source": f"{BELT}&trouble=black@8&parts=24", "fps": 5, "black_below": 5}
    with running(write_config(line_folder, {"top": camera})) as line:
        line.until(lambda line: line.health.cameras["top"].error is not None)
        assert line.health.state == "degraded"
        assert line.health.cameras["top"].state == "running"
        line.until_end()
    faults = [verdict for verdict in line.verdicts if verdict.decision == "fault"]
    assert [(fault.frame, fault.reason) for fault in faults] == [(n, "camera") for n in range(8, 18)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "simulated://?trouble=flood@5",
            "trouble: found 'flood@5'; expected KIND@FRAME with a KIND of black,",
        ),
        ("simulated://?trouble=black@0", "trouble: found 'black@0'"),
        ("simulated://?trouble=black", "trouble: found 'black'"),
        ("simulated://?cached=0", "cached: found 0; expected 1 to"),
        ("simulated://?cached=99999999", "cached: found 99999999; expected 1 to 2543 parts, 2000 MB"),
        ("simulated://?cached=x", "cached is 'x'; expected a whole number"),
    ],
)
def test_options_that_cannot_be_are_refused(source: str, expected: str) -> None:
    with pytest.raises(InputError, match="simulated:") as refused:
        open_camera(CameraSettings(source))
    assert expected in str(refused.value)


def test_cached_parts_come_again_and_are_drawn_as_ever() -> None:
    cached = SimulatedCamera("simulated://?seed=3&width=64&height=64&cached=3&parts=7")
    drawn = SimulatedCamera("simulated://?seed=3&width=64&height=64&parts=3")
    first = [drawn.grab() for _ in range(3)]
    assert drawn.grab() is None
    for index in range(7):
        picture, expected = cached.grab(), first[index % 3]
        assert picture is not None and expected is not None
        assert np.array_equal(picture.pixels, expected.pixels)
        assert picture.part == expected.part
    assert cached.grab() is None


def test_a_fast_belt_keeps_its_pace() -> None:
    async def story(rig: CameraRig) -> None:
        rig.start("top", source=f"{BELT}&parts=4000", fps=2000, waiting=1024)
        await rig.until(lambda: rig.states["top"][-1][0] == "ended")

    arrivals = supervise(story).arrivals["top"]
    took_s = (arrivals[-1].captured_ns - arrivals[0].captured_ns) / 1e9
    assert took_s == pytest.approx(2.0, rel=0.25)


def test_a_device_node_that_vanishes_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CameraFailed, match="/dev/video97: no such device"):
        open_camera(CameraSettings("/dev/video97"))
    with pytest.raises(CameraFailed, match="/dev/v4l/by-id/usb-camera: no such device"):
        open_camera(CameraSettings("/dev/v4l/by-id/usb-camera"))
    with pytest.raises(CameraFailed, match="/dev/null does not open as a V4L2 camera"):
        open_camera(CameraSettings("/dev/null"))
