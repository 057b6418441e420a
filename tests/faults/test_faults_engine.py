"""Engines that fail, hang, want all memory or cannot keep up, and engine files that change under the line."""

import signal

import onnx
import pytest
from treacherous import (
    FAILS,
    GOOD,
    HANGS,
    SLOW,
    WANTS_ALL_MEMORY,
    draw_parts,
    make_treacherous,
    replace_engine,
)

from engine_runtime.engine_file import read_engine
from faults.trial import Trial, faulted, health

FPS = 25


def parts(trial: Trial, *greys: int, **settings: object) -> dict[str, object]:
    """A treacherous engine, and a camera that shows parts with a spot of these greys, one after the other."""
    make_treacherous(trial.folder)
    draw_parts(trial.folder / "parts", *greys)
    return {"source": "parts", "fps": FPS, "waiting": 100} | settings


@pytest.mark.parametrize(
    "grey",
    [
        pytest.param(FAILS, marks=pytest.mark.faults("Engine", "raises")),
        pytest.param(WANTS_ALL_MEMORY, marks=pytest.mark.faults("Engine", "out of memory")),
    ],
)
def test_raises(trial: Trial, grey: int) -> None:
    camera = parts(trial, *[GOOD] * 25, grey, *[GOOD] * 25)
    trial.start({"top": camera}, max_batch=1)
    trial.injected_after(25)
    trial.detected(faulted("engine"))
    trial.recovered()
    trial.finish(faults={("top", "engine")})


@pytest.mark.faults("Engine", "hangs (lane replaced after `engine_timeout_s`)")
def test_hangs(trial: Trial) -> None:
    camera = parts(trial, *[GOOD] * 25, HANGS, *[GOOD] * 60)
    trial.start({"top": camera}, max_batch=1, engine_timeout_s=0.5)
    trial.injected_after(25)
    trial.detected(faulted("engine"))
    trial.recovered()
    trial.finish(faults={("top", "engine")})


@pytest.mark.faults("Engine", "hangs for longer than the deadline")
def test_deadlines_while_it_hangs(trial: Trial) -> None:
    camera = parts(trial, *[GOOD] * 25, HANGS, *[GOOD] * 75)
    trial.start({"top": camera}, max_batch=1, engine_timeout_s=1.0, deadline_ms=500)
    trial.injected_after(25)
    trial.detected(faulted("deadline"))
    trial.recovered()
    trial.finish(faults={("top", "deadline")}, possible={("top", "engine")})


@pytest.mark.parametrize(
    "grey",
    [
        pytest.param(FAILS, marks=pytest.mark.faults("Engine", "fails three times in a row")),
        pytest.param(HANGS, marks=pytest.mark.faults("Engine", "hangs three times in a row")),
    ],
)
def test_three_in_a_row(trial: Trial, grey: int) -> None:
    camera = parts(trial, *[GOOD] * 25, *[grey] * 200, waiting=200)
    trial.start({"top": camera}, max_batch=1, engine_timeout_s=0.5)
    trial.injected_after(25)
    trial.detected(faulted("engine"))
    trial.exited(1)
    assert trial.health.state == "failed"
    assert trial.health.error is not None and "3 failures in a row" in trial.health.error
    trial.finish(faults={("top", "engine")} if grey == FAILS else {("top", "engine"), ("top", "shutdown")})


@pytest.mark.faults("Engine", "hangs while the daemon is told to end (SIGTERM)")
def test_hangs_at_the_end(trial: Trial) -> None:
    trial.start({"top": parts(trial, *[GOOD] * 25, *[HANGS] * 200, waiting=200)}, max_batch=1)
    trial.wait_for(health("waiting", lambda health: health.waiting > 5), since_s=0)
    trial.inject()
    trial.send(signal.SIGTERM)
    trial.detected(health("stopping", lambda health: health.state == "stopping"))
    trial.exited(0)
    trial.finish(faults={("top", "shutdown")})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("replaced", marks=pytest.mark.faults("Engine", "fails after its file was replaced")),
        pytest.param("removed", marks=pytest.mark.faults("Engine", "fails after its file was removed")),
    ],
)
def test_fails_when_its_file_is_another_one(trial: Trial, change: str) -> None:
    camera = parts(trial, *[GOOD] * 50, FAILS, *[GOOD] * 100)
    trial.start({"top": camera}, max_batch=1)
    engine = trial.folder / "brightness.engine"
    if change == "replaced":
        model = onnx.load_from_string(read_engine(engine)[1])
        model.producer_name = "another build"
        replace_engine(trial.folder, model.SerializeToString())
    else:
        engine.unlink()
    trial.injected_after(50)
    trial.detected(faulted("engine"))
    # It cannot be opened again, so the failures add up; a restart takes what is there then, or refuses it.
    trial.exited(1)
    assert ("was replaced by another engine" if change == "replaced" else "cannot be read") in trial.log
    trial.finish(faults={("top", "engine")})


@pytest.mark.faults("Engine", "fails after the calibration was removed")
def test_fails_without_calibration(trial: Trial) -> None:
    camera = parts(trial, *[GOOD] * 40, FAILS, *[GOOD] * 25)
    trial.start({"top": camera}, max_batch=1)
    (trial.folder / "brightness.calibration.yaml").unlink()
    trial.injected_after(40)
    trial.detected(faulted("engine"))
    trial.recovered()
    trial.finish(faults={("top", "engine")})


@pytest.mark.faults("Overload", "parts come faster than the engine for 1 s")
def test_overload(trial: Trial) -> None:
    camera = parts(trial, *[GOOD] * 100, *[SLOW] * 200, *[GOOD] * 400, fps=200, waiting=16)
    trial.start({"top": camera}, max_batch=1)
    trial.injected_after(100)
    trial.detected(faulted("overload"))
    trial.recovered()
    trial.finish(faults={("top", "overload")})
