"""Golden samples that get another verdict: at the start, while the line runs, after a reload."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from brightness import THRESHOLD, brightness_model
from line_rig import COMMANDS, part_image
from onnx import helper, numpy_helper
from treacherous import replace_engine

from calibration.calibration_file import read_calibration, write_calibration
from daemon.inspectctl.cli import main as inspectctl
from faults.trial import BELT, Trial, faulted, health

GOLDEN = {"every_h": 0.0003, "on_failure": "stop"}
FAILED = health("golden failed", lambda health: health.golden is not None and health.golden.state == "failed")
PASSED = health("golden passed", lambda health: health.golden is not None and health.golden.state == "passed")
UNFIT = 0.001
"""A threshold by which every part would be rejected, the good sample too."""


def add_sample(trial: Trial) -> None:
    picture = part_image(trial.folder / "good.png", bright=False)
    adding = [COMMANDS / "inspectctl", "golden", "add", "--config", trial.config, "--good", picture]
    for _ in range(20):  # an engine that errs does so in its first run, or not, by the process that runs it
        if subprocess.run(adding, check=False, capture_output=True).returncode == 0:
            return
    raise AssertionError("no sample could be added")


def recalibrate(trial: Trial, threshold: float) -> None:
    file = trial.folder / "brightness.calibration.yaml"
    write_calibration(file, read_calibration(file).model_copy(update={"threshold": threshold}))


def erring_model(path: Path) -> bytes:
    """The brightness model on a device that has gone wrong: one run in three adds 1 to all scores."""
    model = onnx.load(brightness_model(path))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(1 / 3), "one_in_three"))
    for old in graph.node:
        if "score" in old.output:
            old.output[0] = "true_score"
    graph.node.extend(
        [
            helper.make_node("RandomUniform", [], ["chance"], shape=[1]),
            helper.make_node("Less", ["chance", "one_in_three"], ["errs"]),
            helper.make_node("Cast", ["errs"], ["error"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Add", ["true_score", "error"], ["score"]),
        ]
    )
    onnx.save(model, path)
    return path.read_bytes()


@pytest.mark.faults("Golden samples", "one fails at the start (`on_failure: stop`)")
def test_at_the_start(trial: Trial) -> None:
    trial.configure({"top": BELT}, golden=GOLDEN)
    add_sample(trial)
    recalibrate(trial, UNFIT)
    trial.launch(None)
    trial.connect()
    trial.inject()
    trial.detected(FAILED)
    trial.wait_for(faulted("golden"), since_s=0)
    recalibrate(trial, THRESHOLD)
    assert inspectctl(["reload", "--config", str(trial.config)]) == 0
    trial.recovered()
    trial.finish(faults={("top", "golden")})


@pytest.mark.faults("Golden samples", "one fails while the line runs: its device errs now and then")
def test_while_the_line_runs(trial: Trial) -> None:
    replace_engine(trial.folder, erring_model(trial.folder / "erring.onnx"))
    trial.configure({"top": BELT}, golden=GOLDEN)
    add_sample(trial)
    trial.launch(None)
    trial.connect()
    trial.wait_for(PASSED, since_s=0)
    trial.inject()
    trial.detected(FAILED)  # one run in three errs, and there is one each second
    trial.recovered()  # the next run finds it right again
    trial.finish(faults={("top", "golden")})


@pytest.mark.faults("Golden samples", "one fails after a reload")
def test_after_a_reload(trial: Trial) -> None:
    trial.configure({"top": BELT}, golden=GOLDEN)
    add_sample(trial)
    trial.start({"top": BELT}, golden=GOLDEN)
    trial.wait_for(PASSED, since_s=0)
    recalibrate(trial, UNFIT)
    trial.inject()
    assert inspectctl(["reload", "--config", str(trial.config)]) == 0
    trial.detected(faulted("golden"))
    recalibrate(trial, THRESHOLD)
    assert inspectctl(["reload", "--config", str(trial.config)]) == 0
    trial.recovered()
    trial.finish(faults={("top", "golden")})
