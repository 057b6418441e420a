"""Many trainings as one plan: whatever is killed, each model is trained once and stands in the table."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_set_folders import draw_part, mvtec_ad
from in_process import refused, run
from line_rig import COMMANDS
from patience import PATIENCE_S

from models.commands import train_model
from models.plans.plan import finished, read_plan

PADIM = {"method": "padim", "image_size": 128, "channels": 8}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One product with defects to evaluate on, and one with good parts alone."""
    folder = tmp_path_factory.mktemp("products")
    mvtec_ad(folder / "flange")
    for index in range(6):
        draw_part(folder / "plain" / f"{index:03}.png", index)
    return folder


def write_plan(folder: Path, images: Path, **keys: Any) -> Path:
    plan = folder / "plan.yaml"
    given = {
        "products": {name: str(images / name) for name in ("flange", "plain")},
        "methods": {"padim": PADIM},
    }
    plan.write_text(yaml.safe_dump(given | keys, sort_keys=False))
    return plan


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def done(out: Path) -> dict[Path, int]:
    """Give the results that stand, and when they were written."""
    return {file: file.stat().st_mtime_ns for file in out.rglob("result.json")}


@pytest.mark.slow
def test_a_plan_is_carried_out_whatever_is_killed(products: Path, tmp_path: Path) -> None:
    """A training is killed, then all of it; one product cannot be learned, and the others can."""
    damaged = tmp_path / "damaged"
    shutil.copytree(products / "plain", damaged)
    (damaged / "003.png").write_bytes(b"no picture")
    named = {"flange": str(products / "flange"), "damaged": str(damaged)}
    plan, out = write_plan(tmp_path, products, products=named), tmp_path / "out"
    command = [COMMANDS / "train-model", "--plan", plan, "--out", out, "--at-once", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        trainings: set[int] = set()
        while not done(out):
            assert first.poll() is None
            found = children(first.pid)
            if found and not trainings:
                os.kill(found[0], signal.SIGKILL)  # as the kernel does where memory runs out
            trainings.update(found)
            time.sleep(0.02)
        left = children(first.pid)
        first.kill()
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert len(trainings) > 1, "the killed one was begun again"
    before = done(out)
    again = run(train_model, *command[1:])
    last = again.stderr.splitlines()[-1]
    assert again.returncode == 1 and "003.png" in last
    assert last.startswith(f"train-model: {plan}: 1 of 2 trainings failed, first damaged, padim, seed 0:")
    assert done(out) == before
    table = json.loads((out / "plan.json").read_text())
    assert [row["state"] for row in table] == ["done", "failed"]
    assert 0 <= table[0]["image_auroc"] <= 1 and "damaged" in (out / "plan.md").read_text()
    # Done is done; another setting is another model.
    flange, _ = read_plan(plan, out)
    assert finished(flange) is not None
    write_plan(tmp_path, products, products=named, methods={"padim": PADIM | {"channels": 4}})
    assert not any(finished(task) for task in read_plan(plan, out))


def test_good_parts_alone_are_learned_and_not_evaluated(products: Path, tmp_path: Path) -> None:
    assert [task.evaluated for task in read_plan(write_plan(tmp_path, products), tmp_path)] == [True, False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"products": {}}, "products"),
        ({"products": {"x": "nowhere"}}, "products.x: "),
        ({"methods": {"x": {"metod": "padim"}}}, "methods.x: metod: is not an option"),
        ({"methods": {"x": {"method": "unknown"}}}, "methods.x: method: found 'unknown'"),
        ({"methods": {"x": {"out": "y.onnx"}}}, "methods.x.out: found here, expected none"),
        ({"methods": {"a/b": {}}}, "expected a name"),
        ({"seeds": [-1]}, "seeds"),
        ({"seed": [1]}, "seed: unknown key; did you mean seeds?"),
    ],
)
def test_a_wrong_plan_is_one_line(products: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    plan = write_plan(tmp_path, products, **change)
    said = refused(run(train_model, "--plan", plan, "--out", tmp_path / "out"))
    assert said.startswith(f"train-model: {plan}:") and words in said
    assert not done(tmp_path / "out")


def test_a_wrong_cluster_is_one_line(products: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, products)
    said = refused(run(train_model, "--plan", plan, "--out", tmp_path / "out", "--cluster", "http://x"))
    assert "expected local or ray://HOST:10001" in said


@pytest.mark.slow
def test_on_a_cluster_whose_worker_and_head_are_killed(products: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'inspectd[ray]'")
    from ray_rig import RayCluster

    plan, out = write_plan(tmp_path, products), tmp_path / "out"
    with RayCluster(tmp_path) as cluster:
        command = [COMMANDS / "train-model", "--plan", plan, "--out", out, "--cluster", cluster.address]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as first:
            while not (killed := cluster.workers()):
                assert first.poll() is None
                time.sleep(0.05)
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
            while not done(out):
                assert first.poll() is None, first.communicate()[1]
                time.sleep(0.05)
            before = done(out)
            cluster.kill()
            said = first.communicate(timeout=PATIENCE_S)[1]
            if first.returncode:  # it may just have been done
                assert first.returncode == 1, said
                assert "the same command goes on with what is not done" in said.splitlines()[-1]
        cluster.start()
        again = run(train_model, *command[1:-1], cluster.address)
        assert again.returncode == 0, again.stderr
        assert before.items() <= done(out).items()
        table = json.loads((out / "plan.json").read_text())
        assert [row["state"] for row in table] == ["done"] * 2
