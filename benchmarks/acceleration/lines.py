"""(d), (e) The daemon on a GPU: cameras, latency, faults; and whether memory stays flat."""

import subprocess
import time
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


def cameras(session: Session, engine: Path) -> Part:
    """Run lines of simulated cameras at fixed rates."""
    rows, measured = [], {}
    for count, fps in CAMERAS.items():
        frames = round(fps * session.seconds(20))
        run = run_line(
            session, engine, [Camera(SIDE, frames, fps)] * count, f"{count} cameras", deadline_ms=1000
        )
        judged = [verdict.latency_ms for verdict in run.verdicts if verdict.decision != "fault"]
        took = [latency.total for latency in judged]
        infer = [latency.infer for latency in judged if latency.infer is not None]
        percentiles = np.percentile(took, (50, 99, 99.9)).round(2).tolist() if took else [float("nan")] * 3
        rows.append(
            (
                f"{count} × {fps:g}/s",
                f"{run.per_second:,.0f}",
                *(f"{value:.2f}" for value in percentiles),
                f"{np.median(infer):.2f}" if infer else "",
                f"{sum(run.faults.values())} of {run.captured}",
                f"{run.captured - len(run.verdicts)}",
            )
        )
        measured[f"{count}"] = {
            "latency_ms": percentiles,
            "faults": dict(run.faults),
            "captured": run.captured,
        }
    columns = (
        "cameras",
        "verdicts/s",
        "ms, median",
        "ms, p99",
        "ms, p99.9",
        "ms in the engine, median",
        "faults",
        "frames without a verdict",
    )
    note = f"From capture to decision; simulated cameras of {SIDE}×{SIDE} in processes of their own."
    return Part("Simulated cameras on one inspectd", Table(columns, rows), [note], measured)


def soak(session: Session, engine: Path, minutes: float) -> Part:
    """Run four cameras for minutes and watch memory.

    Raises:
        LineFailed: the daemon ended before.
    """
    folder = session.fresh_folder("soak")
    line = [Camera(SIDE, None, CAMERAS[4])] * 4
    inspection = Inspection(write_line(session, folder, engine, line, 1000))
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
