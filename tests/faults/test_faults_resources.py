"""Memory, descriptors and disks that run out, or go away."""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_rig import part_image

from faults.test_faults_journal import fill
from faults.trial import BELT, Trial, faulted, health

CGROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.faults("Resources", "daemon out of file descriptors while a camera is killed")
def test_out_of_descriptors(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    process = trial.camera_process("top")
    pid = trial.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    trial.inject()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    subprocess.run(["kill", "-KILL", str(process)], check=True)
    trial.detected(faulted("camera"))
    cannot = health(
        "cannot be started",
        lambda h: "cannot be started: Too many open files" in (h.cameras["top"].error or ""),
    )
    trial.wait_for(cannot)
    trial.uninterrupted("side", verdicts=100)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    trial.recovered()
    # The journal needs no new descriptor to go on, or would say so.
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Resources", "no shared memory for the cameras of a reload")
def test_out_of_shared_memory(trial: Trial) -> None:
    trial.start({"top": BELT})
    cameras = {"top": BELT | {"waiting": 20}} | {
        f"side{index}": BELT | {"waiting": 1024} for index in range(8)
    }
    trial.reconfigure(cameras=cameras)
    status = Path(f"/proc/{trial.process.pid}/status").read_text()
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:")) * 1024
    trial.inject()
    resource.prlimit(trial.process.pid, resource.RLIMIT_AS, (used + 50_000_000,) * 2)
    trial.send(signal.SIGHUP)
    trial.detected_in_log("reload refused, the line runs on as before")
    trial.uninterrupted("top")
    assert "MB of shared memory: " in trial.log
    assert set(trial.health.cameras) == {"top"}
    trial.finish()


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group with 500 MB, and the kernel's own way of keeping to it."""
    group = CGROUPS / f"inspectd-faults-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(500_000_000))
    except OSError as error:
        pytest.skip(f"wants a memory control group (version 1): {error}")
    yield group
    with contextlib.suppress(OSError):
        group.rmdir()


@pytest.mark.faults("Resources", "no memory left: a leaking camera and the kernel's OOM killer")
def test_out_of_memory(little_memory: Path, trial: Trial) -> None:
    source = str(BELT["source"]) + "&trouble=leak@30"
    trial.configure({"top": BELT | {"source": source, "fps": 20}, "side": BELT})
    trial.start(trial.content["cameras"])
    for pid in (trial.process.pid, trial.camera_process("top"), trial.camera_process("side")):
        (little_memory / "cgroup.procs").write_text(str(pid))
    trial.injected_after(29)
    trial.detected(faulted("camera"))
    trial.recovered()
    assert "its process was killed by SIGKILL" in trial.log
    trial.finish(faults={("top", "camera")})


def rejects(trial: Trial) -> dict[str, object]:
    """A camera that shows a reject and good parts by turns."""
    for index in range(10):
        part_image(trial.folder / f"parts/{index}.png", bright=index == 0)
    return {"source": "parts", "loop": True, "fps": 100, "waiting": 200}


@pytest.mark.faults("Resources", "archive folder removed")
def test_archive_removed(trial: Trial) -> None:
    trial.start({"top": rejects(trial)}, archive={"folder": "rejects"})
    trial.inject()
    shutil.rmtree(trial.folder / "rejects")
    trial.detected_in_log("archive: ")
    trial.uninterrupted("top")
    trial.finish()


@pytest.mark.faults("Resources", "archive disk full")
def test_archive_full(trial: Trial, small_disk: Path) -> None:
    trial.start({"top": rejects(trial)}, archive={"folder": str(small_disk / "rejects")})
    trial.inject()
    fill(small_disk)
    trial.detected_in_log("archive: ")
    trial.uninterrupted("top")
    trial.finish()


@pytest.mark.faults("Resources", "nobody reads the daemon's log, and its pipe is full")
def test_log_pipe_is_full(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(trial, "open_log", lambda: os.fdopen(writing, "wb"))
    for index in range(300):
        part = part_image(trial.folder / f"parts/{index:03d}.png", bright=False)
        if 50 <= index < 150:
            part.write_bytes(b"no image, and a line in the log")
    trial.start({"top": {"source": "parts", "fps": 50, "waiting": 100}, "side": BELT})
    trial.injected_after(50)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})
    os.close(reading)
