"""(d), (e) The daemon on a GPU: cameras, latency, faults; and whether memory stays flat."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from comparison.line import Camera, LineFailed, run_line, write_line
from comparison.report import Part, Table
from comparison.session import Session
from inspection import Inspection
from throughput import resident_kb
from tqdm import tqdm

SIDE = 512
CAMERAS = {1: 250.0, 4: 250.0, 16: 60.0}
"""Cameras → frames per second of each."""
CORES_APART = 4
"""The line that runs once more with a core for each camera, and the others for the daemon."""
_FEWEST_FOR_DAEMON = 2
_SLOWEST_KEPT = 200
_STAGES = ("wait", "infer", "total")


def cameras(session: Session, engine: Path) -> Part:
    """Run lines of simulated cameras at fixed rates."""
    rows, measured = [], {}
    for count, fps, apart in lines_on(sorted(os.sched_getaffinity(0))):
        frames = round(fps * session.seconds(20))
        belt = [Camera(SIDE, frames, fps, core) for core in apart or [None] * count]
        others = sorted(os.sched_getaffinity(0) - set(apart)) if apart else ()
        name = f"{count} × {fps:g}/s" + (", a core for each camera" if apart else "")
        run = run_line(session, engine, belt, name, deadline_ms=1000, cores=others)
        judged = [verdict for verdict in run.verdicts if verdict.decision != "fault"]
        if not judged:
            raise LineFailed(f"{name}: all of {run.captured} frames became faults: {dict(run.faults)}")
        took = {stage: [getattr(v.latency_ms, stage) for v in judged] for stage in _STAGES}
        percentiles = {stage: np.percentile(took[stage], (50, 99, 99.9)).round(2).tolist() for stage in took}
        rows.append(
            (
                name,
                f"{run.per_second:,.0f}",
                *(f"{value:.2f}" for value in percentiles["total"]),
                *(f"{value:.2f}" for stage in ("wait", "infer") for value in percentiles[stage][:2]),
                f"{sum(run.faults.values())} of {run.captured}",
                f"{run.captured - len(run.verdicts)}",
            )
        )
        slowest = sorted(judged, key=lambda verdict: -verdict.latency_ms.total)[:_SLOWEST_KEPT]
        measured[name] = {
            "latency_ms": percentiles,
            "faults": dict(run.faults),
            "captured": run.captured,
            # When they came, and where they were held up, tells by what.
            "slowest": [[v.camera, v.captured_at, *asdict(v.latency_ms).values()] for v in slowest],
        }
    columns = (
        "cameras", "verdicts/s", "ms, median", "ms, p99", "ms, p99.9", "waiting, median", "waiting, p99",
        "in the engine, median", "in the engine, p99", "faults", "frames without a verdict",
    )  # fmt: skip
    note = (
        f"From capture to decision; simulated cameras of {SIDE}×{SIDE} in processes of their own. The rest of"
        " the time is between the engine and the verdict."
    )
    return Part("Simulated cameras on one inspectd", Table(columns, rows), [note], measured)


def lines_on(cores: Sequence[int]) -> list[tuple[int, float, Sequence[int]]]:
    """Give the lines: cameras, frames per second of each, and the cores they have to themselves, if any."""
    lines: list[tuple[int, float, Sequence[int]]] = [(count, fps, ()) for count, fps in CAMERAS.items()]
    if CORES_APART in CAMERAS and len(cores) >= CORES_APART + _FEWEST_FOR_DAEMON:
        lines.append((CORES_APART, CAMERAS[CORES_APART], cores[-CORES_APART:]))
    return lines


def soak(session: Session, engine: Path, minutes: float) -> Part:
    """Run four cameras for minutes and watch memory.

    Raises:
        LineFailed: the daemon ended before.
    """
    folder = session.fresh_folder("soak")
    line = [Camera(SIDE, None, CAMERAS[4])] * 4
    inspection = Inspection(write_line(session, folder, engine, line, deadline_ms=1000))
    samples: list[tuple[float, float]] = []
    with tqdm(total=round(minutes * 60), desc="soaking", unit="s", disable=None) as bar:
        ends = time.monotonic() + minutes * 60
        while time.monotonic() < ends:
            if inspection.daemon.poll() is not None:
                raise LineFailed(f"inspectd ended after {len(inspection.verdicts)} verdicts of a soak")
            samples.append((resident_kb(inspection.daemon.pid) / 1024, gpu_memory_mb()))
            time.sleep(5)
            bar.update(5)
    inspection.stop()
    faults = sum(verdict.decision == "fault" for verdict in inspection.verdicts)
    early, late = samples[len(samples) // 10], samples[-1]
    rows = [
        (name, f"{early[index]:,.1f}", f"{late[index]:,.1f}", f"{late[index] / early[index] - 1:+.1%}")
        for index, name in enumerate(("the daemon's memory, MB", "the GPU's memory in use, MB"))
    ]
    note = (
        f"{len(inspection.verdicts):,} verdicts of {inspection.captured:,} frames in {minutes:g} minutes,"
        f" {faults} faults."
    )
    return Part(
        "Memory over time",
        Table(("", "after a tenth", "at the end", "change"), rows),
        [note],
        {"mb": samples},
    )


def gpu_memory_mb() -> float:
    """Read how much of the first GPU's memory is in use."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
