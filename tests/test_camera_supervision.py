"""Camera processes that hang, die, lie and flood: real ones, supervised as in the daemon."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from camera_rig import CameraRig, supervise

from daemon.capture import supervisor as supervision
from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import CameraSettings
from daemon.capture.supervisor import DaemonCamera
from foundation.errors import InputError
from pictures.frames import Size

BELT = "simulated://?width=64&height=64&cached=4"


def process_of(camera: DaemonCamera) -> int:
    assert camera._process is not None
    return camera._process.pid


@pytest.fixture
def rude(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Start cameras whose process breaks the rules in the given way."""

    def behave(rudeness: str) -> None:
        program = str(Path(__file__).with_name("rude_camera.py"))
        monkeypatch.setattr(supervision, "PROCESS", [sys.executable, program, rudeness])

    return behave


@pytest.mark.parametrize(
    ("rudeness", "error"),
    [
        ("noise", "broke the protocol: found b'\\x93NUMPY"),
        ("empty-frame", "broke the protocol"),
        ("long", "broke the protocol"),
        ("text", "broke the protocol"),
        ("not-utf8", "broke the protocol"),
        ("daemons-word", "Free while running"),
        ("opened-twice", "Opened while running"),
        ("frame-again", "frame 1 after frame 2"),
        ("frame-far", "after frame 2"),
        ("slot-range", "in slot 1000000, which is not free"),
        ("slot-in-use", "which is not free"),
        ("future", "captured in the future"),
        ("past", "captured in the future or before"),
        ("count", "ended with status 0"),
    ],
)
def test_a_process_that_breaks_the_rules_is_killed_accounted_for_and_replaced(
    rude: Callable[[str], None], rudeness: str, error: str
) -> None:
    rude(rudeness)

    async def story(rig: CameraRig) -> None:
        rig.holding = True
        camera = rig.start("top", source="rude")
        await rig.until_state("top", "failed")
        assert error in (camera.error or "")
        announced = 3 if rudeness == "slot-in-use" else 2
        counted = 3 if rudeness not in {"count"} else 2
        assert camera.captured == max(announced, counted) + 1  # and one to tell of the failure
        assert error in rig.errors("top")[-1]
        await rig.until_state("top", "running")

    supervise(story)


def test_a_frame_behind_the_end_is_refused(rude: Callable[[str], None]) -> None:
    rude("after-end")

    async def story(rig: CameraRig) -> None:
        rig.start("top", source="rude")
        await rig.until(lambda: len(rig.arrivals["top"]) == 3)

    rig = supervise(story)
    assert rig.states["top"][-1][0] == "ended"


def test_a_process_without_a_heartbeat_is_restarted_though_it_may_be_silent(
    rude: Callable[[str], None],
) -> None:
    rude("mute")

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source="rude")
        await rig.until_state("top", "running")
        await rig.until_state("top", "stalled")
        assert camera.error == "its process gave no sign of life for 3 s"
        assert camera.alive
        await rig.until_state("top", "running")

    supervise(story)


@pytest.mark.slow
def test_a_camera_that_is_rightly_silent_is_left_alone(rude: Callable[[str], None]) -> None:
    rude("silent")  # heartbeats and no frames, as of a camera that waits for its trigger

    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source="rude")
        await rig.until_state("top", "running")
        began = time.monotonic()
        await rig.until(lambda: time.monotonic() - began > 4.5)
        assert camera.state == "running"
        assert camera.alive

    supervise(story)


def test_a_flood_of_messages_does_not_starve_another_camera(rude: Callable[[str], None]) -> None:
    async def story(rig: CameraRig) -> None:
        rig.start("side", source=BELT, fps=200)
        await rig.until_state("side", "running")
        rude("flood")
        rig.start("top", source="rude")
        await rig.until_state("top", "running")
        seen = len(rig.arrivals["side"])
        await rig.until(lambda: len(rig.arrivals["side"]) > seen + 200)
        assert rig.errors("side") == []

    supervise(story)


@pytest.mark.slow
def test_a_daemon_that_was_held_up_does_not_blame_its_cameras() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=BELT, fps=50, stalled_after_s=3)
        await rig.until(lambda: len(rig.arrivals["top"]) > 10)
        time.sleep(4)  # the event loop hears nothing for longer than any patience
        camera.check_stalled()
        assert camera.state == "running"
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 200)
        assert camera.state == "running"

    supervise(story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP])
def test_a_camera_process_that_is_signalled_loses_no_frame(number: signal.Signals) -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=BELT, fps=500)
        await rig.until(lambda: len(rig.arrivals["top"]) > 20)
        os.kill(process_of(camera), number)
        await rig.until_state("top", "failed")
        known = "gave no sign of life" if number == signal.SIGSTOP else f"was killed by {number.name}"
        assert known in (camera.error or "")
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 20)
        assert camera.error is None

    rig = supervise(story)
    assert 1 <= len(rig.errors("top")) <= 3


@pytest.mark.slow
def test_back_off_grows_while_a_camera_opens_and_fails_at_once(rude: Callable[[str], None]) -> None:
    rude("noise")

    async def story(rig: CameraRig) -> None:
        rig.start("top", source="rude")
        for _ in range(3):
            await rig.until_state("top", "failed")
            await rig.until_state("top", "opening")

    rig = supervise(story)
    states = list(zip(rig.changed_s["top"], [state for state, _ in rig.states["top"]], strict=True))
    waits = [
        opened_s - failed_s
        for (failed_s, failed), (opened_s, opened) in itertools.pairwise(states)
        if (failed, opened) == ("failed", "opening")
    ]
    for wait, expected in zip(waits[:3], (0.5, 1, 2), strict=True):
        assert wait >= expected * 0.75 - 0.01


def test_a_process_that_cannot_be_started_is_a_failed_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    good = supervision.PROCESS

    async def story(rig: CameraRig) -> None:
        monkeypatch.setattr(supervision, "PROCESS", ["/nowhere/python"])
        camera = rig.start("top", source=BELT, fps=50)
        assert camera.state == "failed"
        assert camera.error == "its process cannot be started: No such file or directory"
        monkeypatch.setattr(supervision, "PROCESS", good)
        await rig.until_state("top", "running")

    supervise(story)


def test_a_counter_goes_on_where_it_stands() -> None:
    counter = CaptureCounter.create(None, "aa")
    counter.captured = 41

    async def story() -> None:
        rig = CameraRig()
        rig.start("top", source="simulated://?width=64&height=64&cached=2&parts=50", counter=counter)
        await rig.until(lambda: rig.states["top"][-1][0] == "ended")
        await rig.stop()
        assert rig.frames("top") == list(range(42, 51))

    asyncio.run(story())
    assert counter.captured == 50


def test_no_memory_for_the_slots_is_said_in_one_line() -> None:
    with pytest.raises(
        InputError, match=r"cameras\.top\.waiting: found 1024; its frames need \d+ MB of shared memory"
    ):
        DaemonCamera(
            "top",
            CameraSettings("x", waiting=1024),
            Size(1_000_000, 1_000_000),
            judged_at_once=1,
            sink=CameraRig(),
            counter=CaptureCounter.create(None, "aa"),
        )


def test_stopping_a_camera_that_hangs_takes_no_longer_than_its_patience() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=f"{BELT}&trouble=hang@5", fps=50)
        await rig.until(lambda: len(rig.arrivals["top"]) == 4)
        await camera.stop(0.5)  # it would hang for ever
        assert not exists(camera)

    supervise(story)


def exists(camera: DaemonCamera) -> bool:
    with contextlib.suppress(AssertionError):
        return bool(process_of(camera))
    return False


def test_stopping_a_camera_that_was_restarted_waits_for_its_last_frames() -> None:
    async def story(rig: CameraRig) -> None:
        camera = rig.start("top", source=f"{BELT}&trouble=crash@20", fps=1000)
        await rig.until_state("top", "failed")
        seen = len(rig.arrivals["top"])
        await rig.until(lambda: len(rig.arrivals["top"]) > seen + 20)
        await camera.stop(5)
        assert camera._process is None

    supervise(story)
