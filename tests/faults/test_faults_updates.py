"""A release is taken up by a running line: killed in between, refused, or worse than what was there."""

import subprocess
from pathlib import Path

import pytest
from line_rig import COMMANDS

pytest.importorskip("tuf", reason="needs tuf: pip install 'inspectd[update]'")

from in_process import refused
from release_rig import Desk, inspectctl, threshold_of

from daemon.updates import repository
from faults.trial import BELT, Sign, Trial
from verdicts import Verdict

RARELY_BAD = BELT | {"source": "simulated://?width=64&height=64&cached=4&defects=0"}
UNFIT = 0.001
"""A threshold by which every part is rejected."""


def judged_by(threshold: float) -> Sign:
    """Say that a part was judged by the calibration with this threshold."""
    return Sign(
        "verdict: another threshold",
        lambda message: isinstance(message, Verdict) and message.threshold == threshold,
    )


@pytest.fixture
def desk(trial: Trial, tmp_path: Path) -> Desk:
    """Where releases of the trial's line are made; the line runs, and has release 1."""
    trial.start({"top": RARELY_BAD})
    made = Desk(tmp_path, trial.folder, trial.config)
    made.make(0.9)
    done = inspectctl(*_update(trial, made), "--root", made.root, "--parts", 50)
    assert done.returncode == 0, done.stderr
    assert threshold_of(trial.config) == 0.9
    return made


def _update(trial: Trial, desk: Desk) -> tuple[object, ...]:
    return ("update", "--config", trial.config, "--from", desk.repository)


@pytest.mark.faults("Updates", "`inspectctl update` killed (SIGKILL) while its release is watched")
def test_killed_while_it_watches(trial: Trial, desk: Desk) -> None:
    desk.make(0.85)
    command = [COMMANDS / "inspectctl", *map(str, _update(trial, desk)), "--parts", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as update:
        assert update.stdout is not None
        while "reloaded" not in update.stdout.readline():
            assert update.poll() is None
        trial.inject()
        update.kill()
    trial.not_told()
    trial.uninterrupted()
    assert threshold_of(trial.config) == 0.85
    desk.make(0.8)  # the next update first gives the line what it had
    done = inspectctl(*_update(trial, desk), "--parts", 50)
    assert "the update to 2 was interrupted: rolled back" in done.stdout
    assert done.returncode == 0, done.stderr
    for threshold in (0.9, 0.8):
        trial.wait_for(judged_by(threshold))
    trial.finish()


@pytest.mark.faults("Updates", "the repository has expired")
def test_expired(trial: Trial, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.make(0.85)
    monkeypatch.setattr(repository, "DAYS", repository.DAYS | {"timestamp": -1})
    repository.renew(desk.repository, desk.keys)
    trial.inject()
    assert "has expired" in refused(inspectctl(*_update(trial, desk)))
    trial.told_by_command("`inspectctl update`")
    trial.uninterrupted()
    assert threshold_of(trial.config) == 0.9
    trial.finish()


@pytest.mark.faults("Updates", "rejects rise after an update: rolled back")
def test_rejects_rise(trial: Trial, desk: Desk) -> None:
    desk.make(UNFIT)
    trial.inject()
    said = refused(inspectctl(*_update(trial, desk)), code=1)
    assert "release 2: rejects rose: " in said and said.endswith("rolled back")
    trial.wait_for(judged_by(UNFIT))
    trial.told_by_command("`inspectctl update`")
    trial.recovered_when(judged_by(0.9))
    assert threshold_of(trial.config) == 0.9
    assert "was rolled back here (rejects rose" in refused(inspectctl(*_update(trial, desk)))
    trial.finish()
