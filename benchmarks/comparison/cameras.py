"""(d) One to sixteen cameras on one daemon, beside what the engine alone can do."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comparison.line import Camera, LineFailed, LineRun, run_line
from comparison.pairing import Spread, ratio, take_turns
from comparison.report import Part, Table
from comparison.session import Session
from engine_runtime.engine import Engine, uncalibrated
from pictures.frames import fit

COUNTS = (1, 2, 4, 8, 16)
SIDE, MODEL_SIDE = 512, 256
MODERATE, TOO_MUCH = 0.7, 1.5
"""Frames per second of all cameras together, as a share of the engine's capacity."""

BARE, DAEMON = "bare engine", "inspectd"


def compare(session: Session) -> Part:
    """Measure throughput, latency, processor time and faults."""
    path = session.engine("xs", MODEL_SIDE, session.max_batch)
    engine = session.open(path)
    rows, measured = [], {}
    for count in COUNTS[:2] if session.quick else COUNTS:
        capacity = take_turns(
            {
                BARE: lambda: bare_engine(engine, session.seconds(5)),
                DAEMON: lambda count=count: at_capacity(session, path, count).per_second,  # type: ignore[misc]
            },
            session.laps(5),
            f"(d) {count} cameras, capacity",
            warm_up=0,
        )
        bare = Spread.of(capacity[BARE]).median
        moderate = paced(session, path, count, MODERATE * bare)
        too_much = paced(session, path, count, TOO_MUCH * bare)
        late = [verdict.latency_ms.total for verdict in moderate.verdicts if verdict.decision != "fault"]
        p50, p99 = np.percentile(late, (50, 99)).tolist() if late else (float("nan"), float("nan"))
        runs = [moderate, too_much]
        rows.append(
            (
                f"{count}",
                f"{bare:.1f}",
                f"{Spread.of(capacity[DAEMON]).median:.1f}",
                f"{ratio(capacity, DAEMON, BARE).median:.0%}",
                f"{p50:.0f}",
                f"{p99:.0f}",
                f"{moderate.daemon_cores:.2f} + {moderate.camera_cores:.2f}",
                f"{sum(moderate.faults.values())} of {moderate.captured}",
                f"{sum(too_much.faults.values())} of {too_much.captured}",
                f"{sum(run.captured - len(run.verdicts) for run in runs)}",
            )
        )
        measured[f"{count}"] = {
            "capacity_per_second": capacity,
            "moderate": summary(moderate),
            "too_much": summary(too_much),
        }
    engine.close()
    columns = (
        "cameras", "engine alone, frames/s", "inspectd, frames/s", "share", "at 70 %: ms, median", "ms, p99",
        "cores: daemon + cameras", "faults", "at 150 %: faults", "frames without a verdict",
    )  # fmt: skip
    return Part(
        f"Simulated cameras of {SIDE}×{SIDE}, XS at {MODEL_SIDE}×{MODEL_SIDE}",
        Table(columns, rows),
        [
            f"The engine alone judges batches of {session.max_batch} from memory, in turns with the daemon,"
            " whose cameras send whenever there is room. Then all cameras together send 70 % and 150 % of"
            " what the engine alone can do; latency is from capture to decision. Every verdict is journaled"
            " and published. Cameras, daemon and subscriber share the machine's cores with the engine.",
        ],
        measured,
    )


def bare_engine(engine: Engine, seconds: float) -> float:
    """Give the frames per second of the engine alone, full batches from memory."""
    from daemon.capture.drivers.simulated import SimulatedLine

    size, batch = engine.manifest.input_size, engine.manifest.max_batch
    line = SimulatedLine(seed=0, width=SIDE, height=SIDE)
    frames = [fit(line.frame(index)[0], size) for index in range(batch)]
    quantiles = uncalibrated(engine.manifest.maps)
    done, began = 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        engine.infer(frames, quantiles)
        done += batch
    return done / (time.perf_counter() - began)


def at_capacity(session: Session, engine: Path, count: int) -> LineRun:
    """Run cameras that send whenever there is room."""
    frames = max(4, round(session.seconds(640) / count))
    cameras = [Camera(SIDE, frames, None)] * count
    run = run_line(session, engine, cameras, "inspectd at capacity", deadline_ms=600_000)
    if run.faults:  # they would count as throughput
        raise LineFailed(f"cameras that wait for room: {dict(run.faults)} of {run.captured} frames")
    return run


def paced(session: Session, engine: Path, count: int, per_second: float) -> LineRun:
    """Run cameras that together send so many frames per second, whether or not the daemon keeps up."""
    fps = per_second / count
    cameras = [Camera(SIDE, max(4, round(fps * session.seconds(6))), fps)] * count
    label = f"inspectd, {per_second:.0f}/s"
    return run_line(session, engine, cameras, label, deadline_ms=1000, sampled=True)


def summary(run: LineRun) -> dict[str, object]:
    """Give what JSON keeps of a run."""
    return {
        "captured": run.captured,
        "verdicts": len(run.verdicts),
        "faults": dict(run.faults),
        "per_second": run.per_second,
        "daemon_cores": number_or_none(run.daemon_cores),
        "camera_cores": number_or_none(run.camera_cores),
        "latency_ms": quantiles([verdict.latency_ms.total for verdict in run.verdicts]),
    }


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Give the quantiles that people ask for."""
    return dict(
        zip(("p10", "p50", "p90", "p99"), np.percentile(values, (10, 50, 90, 99)).tolist(), strict=True)
    )


def number_or_none(value: float) -> float | None:
    """Give what JSON can hold: it has no word for what was not measured."""
    return None if math.isnan(value) else value
