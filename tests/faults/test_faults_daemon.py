"""Signals to the daemon, its sudden death, a clock that is set, and changes of config that cannot work."""

import os
import signal

import pytest
from line_rig import slow_reload

from daemon.journal.reader import JournalReader
from faults.preload import built
from faults.trial import BELT, Trial, faulted, health


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.faults("Daemon", "told to end (SIGTERM)")),
        pytest.param(signal.SIGINT, marks=pytest.mark.faults("Daemon", "interrupted (SIGINT)")),
    ],
)
def test_told_to_end(trial: Trial, number: signal.Signals) -> None:
    trial.start({"top": BELT})
    trial.inject()
    trial.send(number)
    trial.detected(health("stopping", lambda health: health.state == "stopping"))
    trial.exited(0)
    trial.finish()


@pytest.mark.faults("Daemon", "told to end (SIGTERM) while a reload loads another camera")
def test_told_to_end_while_a_reload_loads(trial: Trial) -> None:
    trial.start({"top": BELT})
    trial.reconfigure(cameras={"top": BELT, "side": BELT})
    with slow_reload(trial.process, trial.config):
        os.kill(trial.camera_process("top"), signal.SIGSTOP)  # so that the end is still at work after it
        trial.inject()
        trial.send(signal.SIGTERM)
        trial.detected(health("stopping", lambda health: health.state == "stopping"))
    trial.exited(0)
    assert "side" not in trial.health.cameras, "nobody would judge its parts"
    trial.finish(possible={("top", "camera")})  # a frame that was counted and not delivered yet


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, marks=pytest.mark.faults("Daemon", "killed (SIGKILL), started again")),
        pytest.param(signal.SIGSEGV, marks=pytest.mark.faults("Daemon", "crashes (SIGSEGV), started again")),
    ],
)
def test_killed(trial: Trial, number: signal.Signals) -> None:
    trial.start({"top": BELT, "side": BELT})
    # Stopped first, so that the cameras go on capturing what this daemon will never judge.
    trial.send(signal.SIGSTOP)
    trial.wait_for_captured(20)
    boot = trial.health.boot
    trial.inject()
    trial.send(number)
    trial.killed()
    trial.launch()
    trial.detected(health("another boot", lambda health: health.boot != boot))
    trial.recovered("top", "side")
    # What was captured and not judged is in the journal as faults of the boot that was killed.
    trial.finish(faults={("top", "shutdown"), ("side", "shutdown")})


@pytest.mark.faults("Daemon", "held up for 1 s (SIGSTOP, SIGCONT)")
def test_held_up(trial: Trial) -> None:
    trial.start({"top": BELT | {"waiting": 16}, "side": BELT | {"waiting": 16}})
    trial.inject()
    trial.send(signal.SIGSTOP)
    trial.wait_for_captured(100)
    trial.send(signal.SIGCONT)
    # More frames came than may wait.
    trial.detected(faulted("overload"))
    trial.recovered("top", "side")
    trial.finish(faults={("top", "overload"), ("side", "overload")})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"cameras": {}},
            "cameras: found nothing in it, expected",
            marks=pytest.mark.faults("Daemon", "reload: broken config"),
        ),
        pytest.param(
            {"calibration": "gone.yaml"},
            "gone.yaml: cannot be read",
            marks=pytest.mark.faults("Daemon", "reload: calibration is missing"),
        ),
        pytest.param(
            {"engine": "cut.engine"},
            "cut.engine",
            marks=pytest.mark.faults("Daemon", "reload: engine file cut short"),
        ),
    ],
)
def test_reload_of_what_cannot_work(trial: Trial, change: dict[str, object], expected: str) -> None:
    whole = (trial.folder / "brightness.engine").read_bytes()
    (trial.folder / "cut.engine").write_bytes(whole[: len(whole) // 2])
    trial.start({"top": BELT})
    trial.reconfigure(**change)
    trial.inject()
    trial.send(signal.SIGHUP)
    trial.detected_in_log("reload refused, the line runs on as before")
    trial.uninterrupted("top")
    assert expected in trial.log
    trial.finish()


@pytest.mark.faults("Daemon", "reload: a new camera that does not open")
def test_reload_with_a_camera_that_does_not_open(trial: Trial) -> None:
    trial.start({"top": BELT})
    trial.reconfigure(cameras={"top": BELT, "side": {"source": "/dev/video97"}})
    trial.inject()
    trial.send(signal.SIGHUP)
    trial.detected(
        health(
            "camera failed", lambda health: "side" in health.cameras and bool(health.cameras["side"].error)
        )
    )
    trial.uninterrupted("top")
    trial.finish()


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(3600, marks=pytest.mark.faults("Daemon", "wall clock set forward by 1 h")),
        pytest.param(-3600, marks=pytest.mark.faults("Daemon", "wall clock set back by 1 h")),
    ],
)
def test_clock_is_set(trial: Trial, seconds: int) -> None:
    offset = trial.folder / "offset"
    offset.write_text("0")
    clock = {"LD_PRELOAD": built("wall_clock.c", trial.folder), "WALL_CLOCK_OFFSET": str(offset)}
    trial.start({"top": BELT}, environment=clock)
    trial.inject()
    offset.write_text(str(seconds))
    trial.detected(health("sent_at", lambda health: abs(trial.ahead_s(health) - seconds) < 60))
    trial.uninterrupted("top")
    trial.finish()
    with JournalReader(trial.journal) as reader:
        event = reader.last_event("clock")
    assert event is not None and event["set_by_s"] == pytest.approx(seconds, abs=60)
