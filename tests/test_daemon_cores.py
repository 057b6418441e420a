"""A line and its cameras keep to the cores that its config names."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import COMMANDS, running, write_config
from patience import PATIENCE_S

BELT: dict[str, Any] = {"source": "simulated://?width=64&height=64&cached=4", "fps": 50}
CORES = sorted(os.sched_getaffinity(0))
FIRST, LAST = CORES[0], CORES[-1]
BEYOND = os.sysconf("SC_NPROCESSORS_CONF")
more_than_one = pytest.mark.skipif(FIRST == LAST, reason="one core is all that this machine has")


def cores_of(process: int) -> set[frozenset[int]]:
    """Give what each of a process's threads keeps to."""
    threads = [int(thread.name) for thread in Path(f"/proc/{process}/task").iterdir()]
    return {frozenset(os.sched_getaffinity(thread)) for thread in threads}


@more_than_one
def test_the_daemon_and_its_cameras_keep_to_their_cores(line_folder: Path) -> None:
    cameras = {"top": BELT, "side": BELT | {"cores": [LAST]}}
    config = write_config(line_folder, cameras, cores=[FIRST], journal={"file": "line3.journal"})
    with running(config) as line:
        line.until(lambda line: {verdict.camera for verdict in line.verdicts} == {"top", "side"})
        assert cores_of(line.process.pid) == {frozenset([FIRST])}
        cameras_cores = [cores_of(process) for process in line.camera_processes()]
        assert {frozenset([FIRST])} in cameras_cores and {frozenset([LAST])} in cameras_cores
        line.stop()
    assert line.process.returncode == 0


@more_than_one
def test_a_camera_alone_may_be_given_cores(line_folder: Path) -> None:
    config = write_config(line_folder, {"side": BELT | {"cores": [LAST]}})
    with running(config) as line:
        line.until(lambda line: bool(line.verdicts))
        assert frozenset(CORES) in cores_of(line.process.pid)
        (process,) = line.camera_processes()
        assert cores_of(process) == {frozenset([LAST])}


@pytest.mark.parametrize(
    ("keys", "camera", "expected"),
    [
        ({"cores": [FIRST, BEYOND]}, {}, f"line3.yaml: cores: found {BEYOND}, expected some of those that"),
        ({}, {"cores": [BEYOND]}, f"cameras.top: cores: found {BEYOND}, expected some of those that"),
    ],
)
def test_a_core_that_is_not_there_is_refused(
    line_folder: Path, keys: dict[str, Any], camera: dict[str, Any], expected: str
) -> None:
    config = write_config(line_folder, {"top": BELT | camera}, **keys)
    for how in [], ["--check"]:
        done = subprocess.run(
            [COMMANDS / "inspectd", "--config", config, *how],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 2
        assert expected in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@more_than_one
def test_a_reload_gives_a_camera_other_cores_and_the_daemon_none(line_folder: Path) -> None:
    control = f"ipc://{line_folder}/control"
    keys: dict[str, Any] = {"cores": [FIRST], "journal": {"file": "line3.journal"}, "control": control}
    config = write_config(line_folder, {"top": BELT}, **keys)

    def reload(**changes: Any) -> "subprocess.CompletedProcess[str]":
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))
        return subprocess.run(
            [COMMANDS / "inspectctl", "reload", "--config", config],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    with running(config) as line:
        line.until(lambda line: bool(line.verdicts))
        (first,) = line.camera_processes()
        done = reload(cameras={"top": BELT | {"cores": [LAST]}})
        assert done.returncode == 0, done.stderr
        line.until(lambda line: line.camera_processes() not in ([], [first]))
        (second,) = line.camera_processes()
        line.until(lambda line: cores_of(second) == {frozenset([LAST])})
        done = reload(cores=[LAST])
        assert done.returncode == 2
        assert "cores: was changed; only a restart makes that take effect" in done.stderr
        line.stop()
    assert [verdict.seq for verdict in line.verdicts] == list(range(1, len(line.verdicts) + 1))
