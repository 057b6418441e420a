"""A line of simulated cameras: its config, and one run of it from the first verdict to the last."""

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from inspection import Inspection
from passing_calibration import write_passing_calibration
from throughput import cpu_seconds
from tqdm import tqdm

from comparison.session import Session
from verdicts import Verdict

_CACHED = 8
"""Parts that are drawn before the first frame: drawing is the simulation's cost, not the line's."""
_SAMPLED_EVERY_S = 1.0


class LineFailed(Exception):
    """A line did not do what the comparison needs; the text says what it did instead."""


@dataclass(frozen=True)
class Camera:
    """One simulated camera.

    Attributes:
        side: of its square frames, pixels.
        frames: until the belt stops; None for no end.
        fps: frames per second; None for as many as there is room for.
        core: which its process keeps to; None for any.
    """

    side: int
    frames: int | None
    fps: float | None
    core: int | None = None

    def section(self, seed: int) -> dict[str, object]:
        """Give its section of the config."""
        source = f"simulated://?seed={seed}&width={self.side}&height={self.side}&cached={_CACHED}"
        if self.frames is not None:
            source += f"&parts={self.frames}"
        section: dict[str, object] = {"source": source}
        if self.fps is not None:
            section["fps"] = self.fps
        if self.core is not None:
            section["cores"] = [self.core]
        return section


def write_line(
    session: Session,
    folder: Path,
    engine: Path,
    cameras: Sequence[Camera],
    *,
    deadline_ms: float,
    cores: Sequence[int] = (),
) -> Path:
    """Write config and calibration of a line that lets every part pass, and give the config's path.

    The daemon's process keeps to ``cores``, where any are given.
    """
    write_passing_calibration(folder / "line.calibration.yaml", engine)
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
    } | ({"cores": list(cores)} if cores else {})
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
    """Verdicts, after the first tenth of them: while they come, the last cameras still start."""
    daemon_cores: float
    """Processor time of the daemon, engine included, per second of the run; NaN when it was not sampled."""
    camera_cores: float
    """The same of all its camera processes together."""

    @property
    def faults(self) -> Counter[str]:
        """Count the faults by reason."""
        return Counter(verdict.reason or "" for verdict in self.verdicts if verdict.decision == "fault")


def run_line(
    session: Session,
    engine: Path,
    cameras: Sequence[Camera],
    label: str,
    *,
    deadline_ms: float,
    cores: Sequence[int] = (),
    sampled: bool = False,
) -> LineRun:
    """Run a line until its cameras have ended.

    Args:
        session: of the run.
        engine: of the line.
        cameras: its cameras.
        label: of the progress bar.
        deadline_ms: of each frame.
        cores: that the daemon's process keeps to; all when empty.
        sampled: whether to see how much processor time is used; looking for it may hold frames up.

    Raises:
        LineFailed: there is no verdict on which to measure anything.
    """
    folder = session.fresh_folder("line")
    inspection = Inspection(
        write_line(session, folder, engine, cameras, deadline_ms=deadline_ms, cores=cores)
    )
    usage = ProcessorTime(inspection.daemon.pid)
    wanted = sum(camera.frames or 0 for camera in cameras)
    with tqdm(total=wanted, desc=label, unit="verdict", leave=False, disable=None) as bar:
        sampled_s = 0.0
        while inspection.daemon.poll() is None:
            # To look through all processes costs milliseconds, which the line would lack.
            due = time.monotonic() - sampled_s > _SAMPLED_EVERY_S
            if sampled and due and 0 < len(inspection.verdicts) < wanted:
                usage.sample()
                sampled_s = time.monotonic()
            bar.update(len(inspection.verdicts) - bar.n)
            time.sleep(0.1)
    inspection.wait()
    if len(inspection.verdicts) < 2:
        raise LineFailed(f"{label}: inspectd ended after {len(inspection.verdicts)} verdicts")
    arrived = inspection.arrived_s[len(inspection.verdicts) // 10 :]
    return LineRun(
        inspection.captured,
        inspection.verdicts,
        (len(arrived) - 1) / (arrived[-1] - arrived[0]),
        *usage.cores(),
    )


class ProcessorTime:
    """The processor time of a daemon and of the processes below it, sampled while they run."""

    def __init__(self, daemon: int) -> None:
        self._daemon = daemon
        self._stamps: list[float] = []
        self._first_s: dict[int, float] = {}
        self._last_s: dict[int, float] = {}

    def sample(self) -> None:
        """Read it now."""
        self._stamps.append(time.monotonic())
        for pid in (self._daemon, *descendants(self._daemon)):
            with suppress(OSError):  # it has ended meanwhile
                used_s = cpu_seconds(pid)
                self._first_s.setdefault(pid, used_s)
                # What a thread used is gone when it ends.
                self._last_s[pid] = max(used_s, self._last_s.get(pid, 0.0))

    def cores(self) -> tuple[float, float]:
        """Give how many cores the daemon used, and how many the others, from the first sample to the last."""
        if len(self._stamps) < 2:
            return math.nan, math.nan
        lasted = self._stamps[-1] - self._stamps[0]
        used = {pid: (last - self._first_s[pid]) / lasted for pid, last in self._last_s.items()}
        own = used.pop(self._daemon, math.nan)
        return own, sum(used.values())


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
