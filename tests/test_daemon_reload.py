"""A running line changes over to another config, engine, calibration or product, and loses no frame."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
import zmq
from brightness import THRESHOLD
from line_rig import COMMANDS, RunningLine, running, slow_reload, write_config
from patience import PATIENCE_S
from treacherous import replace_engine

from engine_runtime.engine_file import read_engine
from verdicts import ControlSilent, LineControl

BELT = {"source": "simulated://?width=64&height=64&cached=4", "fps": 100}
OTHER_THRESHOLD = 0.001
"""Everything is brighter: all parts are rejected."""


def inspectctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / "inspectctl", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def other_calibration(folder: Path) -> str:
    content = yaml.safe_load((folder / "brightness.calibration.yaml").read_text())
    content["threshold"] = OTHER_THRESHOLD
    (folder / "other.calibration.yaml").write_text(yaml.safe_dump(content))
    return "other.calibration.yaml"


def line_config(folder: Path, **keys: Any) -> Path:
    control = f"ipc://{folder}/control"
    return write_config(folder, {"top": BELT}, journal={"file": "line3.journal"}, control=control, **keys)


def rewrite(config: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = yaml.safe_load(config.read_text())
    change(content)
    config.write_text(yaml.safe_dump(content))


def lost_nothing(line: RunningLine) -> None:
    assert [verdict.seq for verdict in line.verdicts] == list(range(1, len(line.verdicts) + 1))
    for camera in {verdict.camera for verdict in line.verdicts}:
        frames = sorted(verdict.frame for verdict in line.verdicts if verdict.camera == camera)
        assert frames == list(range(1, len(frames) + 1))
    assert {verdict.decision for verdict in line.verdicts} <= {"pass", "reject"}
    assert line.health.waiting == 0


@pytest.mark.parametrize("way", ["signal", "inspectctl"])
def test_a_new_calibration_is_taken_up_between_two_frames(line_folder: Path, way: str) -> None:
    config = line_config(line_folder)
    other = other_calibration(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 50)
        rewrite(config, lambda content: content.update(calibration=other))
        if way == "signal":
            line.process.send_signal(signal.SIGHUP)
        else:
            done = inspectctl("reload", "--config", config)
            assert done.returncode == 0, done.stderr
            assert "taken up" in done.stdout
        line.until(lambda line: line.verdicts[-1].threshold == OTHER_THRESHOLD)
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        line.stop()
    lost_nothing(line)
    thresholds = [verdict.threshold for verdict in sorted(line.verdicts, key=lambda v: v.frame)]
    change = thresholds.index(OTHER_THRESHOLD)
    assert thresholds == [THRESHOLD] * change + [OTHER_THRESHOLD] * (len(thresholds) - change)
    for verdict in line.verdicts:
        assert verdict.score is not None
        assert verdict.decision == ("reject" if verdict.score > verdict.threshold else "pass")


def test_a_new_engine_is_taken_up_and_the_replaced_file_of_the_old_one_does_no_harm(
    line_folder: Path,
) -> None:
    config = line_config(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 50)
        before = line.health.engine
        model = onnx.load_from_string(read_engine(line_folder / "brightness.engine")[1])
        model.producer_name = "another build"
        replace_engine(line_folder, model.SerializeToString())
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        assert line.health.engine == before
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(lambda line: line.health.engine != before)
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        line.stop()
    lost_nothing(line)


def test_cameras_come_change_and_go(line_folder: Path) -> None:
    config = line_config(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        rewrite(config, lambda content: content["cameras"].update(side=BELT, top=BELT | {"waiting": 3}))
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(
            lambda line: set(line.health.cameras) == {"top", "side"} and line.health.state == "running"
        )
        seen = len(line.verdicts)
        line.until(lambda line: {v.camera for v in line.verdicts[seen:]} == {"top", "side"})
        rewrite(config, lambda content: content["cameras"].pop("top"))
        assert inspectctl("reload", "--config", config).returncode == 0
        line.until(lambda line: set(line.health.cameras) == {"side"})
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        assert {verdict.camera for verdict in line.verdicts[seen:]} == {"side"}
        # One that comes back goes on counting its frames: a number stands for one part in a boot.
        rewrite(config, lambda content: content["cameras"].update(top=BELT))
        assert inspectctl("reload", "--config", config).returncode == 0
        seen = len(line.verdicts)
        line.until(lambda line: {v.camera for v in line.verdicts[seen:]} == {"top", "side"})
        line.stop()
    lost_nothing(line)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.update(cameras={}), "cameras: found nothing in it, expected"),
        (lambda content: content.update(engine="gone.engine"), "gone.engine: cannot be read"),
        (lambda content: content.update(calibration="gone.yaml"), "gone.yaml: cannot be read"),
        (
            lambda content: content.update(publish="tcp://127.0.0.1:1"),
            "publish: was changed; only a restart",
        ),
        (lambda content: content.update(spede=1), "spede: unknown key"),
    ],
)
def test_a_broken_config_is_refused_and_the_line_runs_on(
    line_folder: Path, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    config = line_config(line_folder)
    whole = config.read_text()
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        rewrite(config, change)
        control = yaml.safe_load(whole)["control"]
        done = inspectctl("reload", "--control", control)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
        line.process.send_signal(signal.SIGHUP)
        assert line.process.stderr is not None
        refused = next(said for said in line.process.stderr if "reload refused" in said)
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 50 and line.health.state == "running")
        line.stop()
    assert expected in refused and "runs on as before" in refused
    lost_nothing(line)


def test_the_end_does_not_wait_for_what_a_reload_loads(line_folder: Path) -> None:
    config = line_config(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        with slow_reload(line.process, config):
            errors = line.stop()
    assert line.process.returncode == 0
    assert "reload refused: line3 is stopping" in errors
    lost_nothing(line)


def test_whoever_asked_for_a_reload_is_told_that_the_line_ends(line_folder: Path) -> None:
    config = line_config(line_folder)
    control = yaml.safe_load(config.read_text())["control"]
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        config.unlink()
        os.mkfifo(config)
        asking = [COMMANDS / "inspectctl", "reload", "--control", control]
        with subprocess.Popen(asking, stderr=subprocess.PIPE, text=True) as asked:
            with config.open("w"):  # opens when the line reads
                line.stop()
                assert asked.stderr is not None
                assert asked.stderr.read() == "inspectctl: line3 is stopping\n"
            assert asked.wait() == 2
    assert line.process.returncode == 0


def test_whoever_asked_for_a_reload_hears_at_once_that_the_daemon_was_killed(line_folder: Path) -> None:
    config = line_config(line_folder)
    control = yaml.safe_load(config.read_text())["control"]
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        config.unlink()
        os.mkfifo(config)
        asking = [COMMANDS / "inspectctl", "reload", "--control", control]
        asked = subprocess.Popen(asking, stderr=subprocess.PIPE, text=True)
        with asked, config.open("w"):  # opens when the line reads
            line.process.kill()
            _, said = asked.communicate(timeout=PATIENCE_S)
    assert said == f"inspectctl: the daemon at {control} ended before it answered\n"
    assert asked.returncode == 1


def test_a_line_that_dies_is_noticed_however_fast_it_was_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = zmq.Socket.get_monitor_socket

    def late(socket: Any, *arguments: Any) -> Any:
        time.sleep(0.2)  # the connection would stand before anybody watches it
        return attach(socket, *arguments)

    monkeypatch.setattr(zmq.Socket, "get_monitor_socket", late)
    address = f"ipc://{tmp_path}/control"
    line = zmq.Context()
    socket = line.socket(zmq.ROUTER)
    socket.bind(address)
    with LineControl(address, timeout_s=PATIENCE_S) as control, ThreadPoolExecutor(1) as beside:
        answer = beside.submit(control.reload)
        assert socket.poll(PATIENCE_S * 1000), "it was asked"
        line.destroy(linger=0)
        with pytest.raises(ControlSilent, match="ended before it answered"):
            answer.result(timeout=PATIENCE_S)


def test_a_reload_that_the_end_overtakes_starts_no_camera(line_folder: Path) -> None:
    config = line_config(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        rewrite(config, lambda content: content["cameras"].update(side=BELT))
        with slow_reload(line.process, config):
            [camera] = line.camera_processes()
            os.kill(camera, signal.SIGSTOP)  # the end waits for it
            line.process.send_signal(signal.SIGTERM)
            line.until(lambda line: line.health.state == "stopping")
        errors = line.until_end()
    assert line.process.returncode == 0
    assert "reload refused: line3 is stopping" in errors
    assert {name for health in line.healths for name in health.cameras} == {"top"}


def test_a_reload_does_not_end_a_daemon_that_is_starting(line_folder: Path) -> None:
    config = line_config(line_folder)
    content = config.read_text()
    config.unlink()
    os.mkfifo(config)
    daemon = subprocess.Popen(
        [COMMANDS / "inspectd", "--config", config], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    with daemon, config.open("w") as given:  # opens when the daemon reads
        daemon.send_signal(signal.SIGHUP)
        assert daemon.stderr is not None
        assert "reload refused" in daemon.stderr.readline()
        config.unlink()
        config.write_text(content)
        given.write(content)
        given.close()
        assert any("running, verdicts on" in line for line in daemon.stderr)
        daemon.terminate()


def two_products(folder: Path) -> Path:
    config = line_config(folder)
    other = other_calibration(folder)

    def change(content: dict[str, Any]) -> None:
        engine = content.pop("engine")
        content["products"] = {
            "flange": {"engine": engine, "calibration": content.pop("calibration")},
            "washer": {"engine": engine, "calibration": other},
        }
        content["product"] = "flange"

    rewrite(config, change)
    return config


def test_products_are_changed_between_two_frames_and_the_choice_outlives_a_restart(line_folder: Path) -> None:
    config = two_products(line_folder)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        assert line.health.product == "flange"
        done = inspectctl("select", "washer", "--config", config)
        assert done.returncode == 0, done.stderr
        line.until(lambda line: line.health.product == "washer")
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        # Parts captured before were still judged as what they are.
        assert {verdict.threshold for verdict in line.verdicts[-10:]} == {OTHER_THRESHOLD}
        refused = inspectctl("select", "screw", "--config", config)
        assert refused.returncode == 2
        assert "'screw'" in refused.stderr and "flange, washer" in refused.stderr
        line.stop()
    lost_nothing(line)

    with running(config) as line:  # nobody told it again
        line.until(lambda line: len(line.verdicts) > 5)
        assert line.health.product == "washer"
        line.stop()
    rewrite(config, lambda content: content.update(product="washer"))
    rewrite(config, lambda content: content.update(product="flange"))
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 5)
        assert line.health.product == "washer"
        assert inspectctl("select", "flange", "--config", config).returncode == 0
        line.stop()
    rewrite(config, lambda content: content.update(product="washer"))
    with running(config) as line:  # the config was changed since, so it counts
        line.until(lambda line: len(line.verdicts) > 5)
        assert line.health.product == "washer"
        line.stop()
