"""One task of a plan, done by the commands that a person would run, in processes of their own."""

import fcntl
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from foundation.errors import WorkFailed
from foundation.files import write_whole
from models.plans.plan import Task, finished

MOST_KILLS: Final = 5
"""A task whose process was killed so often is not begun again."""


class TaskFailed(WorkFailed):
    """A command refused, or failed; ``str(error)`` is what it said."""


def do(task: Task, threads: int | None) -> dict[str, Any]:
    """Train a model and evaluate it, unless that was done; go on where a training was killed.

    Args:
        task: what.
        threads: that its processes may use; None: as many as they like.

    Returns:
        The result, which then also stands in ``result.json`` of the task's folder.

    Raises:
        TaskFailed: a command did not succeed.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    with _alone(task):
        if found := finished(task):
            return found
        began_s = time.monotonic()
        model, report = task.folder / "model.onnx", task.folder / "evaluation"
        about = ["--data", str(task.data), "--seed", str(task.seed)]
        _run("train-model", [*about, "--settings", str(task.settings), "--out", str(model)], threads)
        metrics: dict[str, Any] = {}
        if task.evaluated:
            _run("evaluate-model", [str(model), *about, "--out", str(report)], threads)
            metrics = json.loads((report / "evaluation.json").read_text())["overall"]
        result = {
            "state": "done",
            "digest": task.digest,
            "image_auroc": _value(metrics.get("image_auroc")),
            "au_pro": _value(metrics.get("overlap", {}).get("0.3")),
            "seconds": round(time.monotonic() - began_s, 1),
            "machine": platform.node(),
        }
        write_whole(task.folder / "result.json", json.dumps(result, indent=1).encode() + b"\n")
        return result


def _value(estimate: dict[str, Any] | None) -> float | None:
    return None if estimate is None else float(estimate["value"])


def _run(command: str, arguments: list[str], threads: int | None) -> None:
    program = "import sys; from foundation import start; sys.argv[0] = sys.argv[1]; del sys.argv[1]; "
    program += f"sys.exit(start.{command.replace('-', '_')}())"
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    for attempt in range(1, MOST_KILLS + 1):
        done = subprocess.run(
            [sys.executable, "-c", program, command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            env=environment,
        )
        if done.returncode == 0:
            return
        if done.returncode > 0 or attempt == MOST_KILLS:
            # Progress bars end in a carriage return.
            said = [part for part in done.stderr.replace("\r", "\n").splitlines() if part.strip()]
            last = said[-1] if said and done.returncode > 0 else f"killed by signal {-done.returncode}"
            raise TaskFailed(last.strip().removeprefix(f"{command}: "))


@contextmanager
def _alone(task: Task) -> Iterator[None]:
    """Wait for whoever works on the same task, such as the worker of a cluster whose head is gone."""
    # A file that may be written: on NFS only such a one can be locked.
    descriptor = os.open(task.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
