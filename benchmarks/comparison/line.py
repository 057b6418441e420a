"""A line of simulated cameras: its config, and one run of it from the first verdict to the last."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from inspection import Inspection
from throughput import cpu_seconds
from tqdm import tqdm

from calibration.calibration_file import Calibration, write_calibration
from comparison.session import Session
from engine_runtime.engine_file import read_manifest
from verdicts import Verdict

_CACHED = 8
"""Parts that are drawn before the first frame: drawing is the simulation's cost, not the line's."""


@dataclass(frozen=True)
class Camera:
    """One simulated camera.

    Attributes:
        side: of its square frames, pixels.
        frames: until the belt stops; None for no end.
        fps: frames per second; None for as many as there is room for.
    """

    side: int
    frames: int | None
    fps: float | None

    def section(self, seed: int) -> dict[str, object]:
        """Give its section of the config."""
        source = f"simulated://?seed={seed}&width={self.side}&height={self.side}&cached={_CACHED}"
        if self.frames is not None:
            source += f"&parts={self.frames}"
        return {"source": source} | ({} if self.fps is None else {"fps": self.fps})


def write_line(
    session: Session, folder: Path, engine: Path, cameras: Sequence[Camera], deadline_ms: float
) -> Path:
    """Write config and calibration of a line that lets every part pass, and give the config's path."""
    write_calibration(
        folder / "line.calibration.yaml",
        Calibration(
            format_version=1,
            model=engine.stem,
            engine_sha256=read_manifest(engine).payload_sha256,
            quantiles=((0.0, 0.1), (0.0, 0.1)),
            threshold=1e9,
            wanted_false_reject_rate=0.0,
            false_reject_rate_interval=(0.0, 1.0),
            confidence=0.9,
            good_images=1,
            good_images_sha256="0" * 64,
            roi=None,
            made_at="2026-01-01T00:00:00Z",
            tool_version="benchmark",
        ),
    )
    config = folder / "line.yaml"
    content = {
        "line": "benchmark",
        "engine": str(engine),
        "calibration": "line.calibration.yaml",
        "publish": f"ipc://{folder}/verdicts",
        "journal": {"file": "line.journal"},
        "deadline_ms": deadline_ms,
        "threads": session.threads,
        "cameras": {f"camera{number}": camera.section(number) for number, camera in enumerate(cameras)},
    }
    for file in folder.glob("line.journal*"):
        file.unlink()
    config.write_text(yaml.safe_dump(content))
    return config


@dataclass(frozen=True)
class LineRun:
    """What a run of a line gave."""

    captured: int
    verdicts: Sequence[Verdict]
    per_second: float
    """Verdicts, from the first to the last."""
    daemon_cores: float
    """Processor time of the daemon, engine included, per second of the run."""
    camera_cores: float
    """The same of all its camera processes together."""

    @property
    def faults(self) -> Counter[str]:
        """Count the faults by reason."""
        return Counter(verdict.reason or "" for verdict in self.verdicts if verdict.decision == "fault")


def run_line(
    session: Session, engine: Path, cameras: Sequence[Camera], label: str, *, deadline_ms: float
) -> LineRun:
    """Run a line until its cameras have ended."""
    folder = session.fresh_folder("line")
    inspection = Inspection(write_line(session, folder, engine, cameras, deadline_ms))
    samples: list[tuple[float, float, float]] = []
    wanted = sum(camera.frames or 0 for camera in cameras)
    with tqdm(total=wanted, desc=label, unit="verdict", leave=False, disable=None) as bar:
        while inspection.daemon.poll() is None:
            if inspection.verdicts:
                samples += sample(inspection.daemon.pid)
            bar.update(len(inspection.verdicts) - bar.n)
            time.sleep(0.1)
    inspection.wait()
    arrived = inspection.arrived_s
    lasted = samples[-1][0] - samples[0][0] if len(samples) > 1 else float("nan")
    daemon, their_cameras = (
        (samples[-1][kind] - samples[0][kind]) / lasted if lasted > 0 else float("nan") for kind in (1, 2)
    )
    return LineRun(
        inspection.captured,
        inspection.verdicts,
        (len(arrived) - 1) / (arrived[-1] - arrived[0]),
        daemon,
        their_cameras,
    )


def sample(daemon: int) -> list[tuple[float, float, float]]:
    """Read now, the daemon's processor time and its descendants', in seconds; nothing once it has ended."""
    try:
        own = cpu_seconds(daemon)
        return [(time.monotonic(), own, sum(cpu_seconds(child) for child in descendants(daemon)))]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """List the processes below a process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def environment_with(notify: Path) -> dict[str, str]:
    """Give an environment in which a service says to a socket when it is ready."""
    return {**os.environ, "NOTIFY_SOCKET": str(notify)}
