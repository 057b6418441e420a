"""(f) How long until it judges, and how much memory it holds: a daemon, and the peer's inferencer."""

import socket
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from inspection import Inspection
from throughput import resident_kb
from tqdm import tqdm

from comparison.equality import SamePeer
from comparison.line import Camera, LineFailed, descendants, environment_with, write_line
from comparison.pairing import Spread, take_turns
from comparison.report import Part, Table
from comparison.session import Session

SIDE, FRAMES = 256, 8
PEER = "anomalib's OpenVINO inferencer, S"


@dataclass(frozen=True)
class Start:
    """One start of one side."""

    ready_s: float
    first_result_s: float
    resident_mb: float
    """Of its main process, after ``FRAMES`` results."""
    peak_mb: float
    """Of its main process so far: what it took to start."""
    with_children_mb: float


def compare(session: Session) -> Part:
    """Start every side several times, in turns."""
    with session.peer() as peer:
        same = SamePeer(session, peer, "s", SIDE, session.engine("s", SIDE, 1))
        exported = same.export(free=True)["openvino"]
    starts: dict[str, list[Start]] = {}

    def turn(name: str, start: object) -> float:
        assert callable(start)
        starts.setdefault(name, []).append(start())
        return starts[name][-1].first_result_s

    sides = {
        f"inspectd, {size.upper()}": partial(start_daemon, session, session.engine(size, SIDE, 1))
        for size in ("xs", "s")
    } | {PEER: partial(start_peer, session, exported)}
    take_turns(
        {name: partial(turn, name, start) for name, start in sides.items()}, session.laps(3), "(f) starts"
    )
    rows, measured = [], {}
    for name, found in starts.items():
        counted = found[1:]  # the first one warmed the caches of the disk and of OpenVINO
        rows.append(
            (
                name,
                "–" if name == PEER else Spread.of([start.ready_s for start in counted]).cells(2)[0],
                *Spread.of([start.first_result_s for start in counted]).cells(2),
                Spread.of([start.resident_mb for start in counted]).cells(0)[0],
                Spread.of([start.peak_mb for start in counted]).cells(0)[0],
                Spread.of([start.with_children_mb for start in counted]).cells(0)[0],
            )
        )
        measured[name] = [vars(start) for start in counted]
    columns = (
        "",
        "ready, s",
        "first result, s",
        "10–90 %",
        "resident, MB",
        "at most",
        "with child processes, MB",
    )
    return Part(
        "Start and memory",
        Table(columns, rows),
        [
            "From the start of the process. A daemon is ready when it says so to systemd, that is when its"
            " engine is warm and its camera open; its first result is the first verdict that a subscriber"
            " receives. The peer's is the answer to the first frame, after importing and loading, with a"
            " warm OpenVINO cache. The engines judge single frames, as is usual on a CPU."
            f" Memory after {FRAMES} frames; the child of a daemon is its camera's"
            " process, and what processes share counts once for each.",
        ],
        measured,
    )


def start_daemon(session: Session, engine: Path) -> Start:
    """Start a daemon with one camera, wait for its verdicts, measure and stop it."""
    folder = session.fresh_folder("line")
    config = write_line(session, folder, engine, [Camera(SIDE, None, 2)], deadline_ms=10_000)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify"))
    began, began_wall = time.monotonic(), time.time()
    inspection = Inspection(config, environment_with(folder / "notify"))
    try:
        wait_until_ready(notify, inspection)
        ready_s = time.monotonic() - began
        wait_for_verdicts(inspection)
        own, peak = resident_kb(inspection.daemon.pid) / 1024, peak_kb(inspection.daemon.pid) / 1024
        children = sum(resident_kb(child) for child in descendants(inspection.daemon.pid)) / 1024
    finally:
        if inspection.daemon.poll() is None:
            inspection.stop()
    return Start(ready_s, inspection.arrived_s[0] - began_wall, own, peak, own + children)


def peak_kb(pid: int) -> int:
    """Give the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def wait_until_ready(notify: socket.socket, inspection: Inspection) -> None:
    """Wait until the daemon says to its service manager that it is ready, and listen no longer.

    A socket that is open but not read would fill, and hold the daemon up.
    """
    notify.settimeout(0.5)
    told: list[bytes] = []
    with closing(notify):
        while b"READY=1" not in told:
            expect_running(inspection)
            with suppress(TimeoutError):
                told = notify.recv(65_536).splitlines()


def wait_for_verdicts(inspection: Inspection) -> None:
    """Wait until the daemon has judged ``FRAMES`` frames."""
    with tqdm(total=FRAMES, desc="inspectd", unit="verdict", leave=False, disable=None) as bar:
        while len(inspection.verdicts) < FRAMES:
            expect_running(inspection)
            bar.update(len(inspection.verdicts) - bar.n)
            time.sleep(0.05)


def expect_running(inspection: Inspection) -> None:
    """See that the daemon has not ended.

    Raises:
        LineFailed: it has.
    """
    if inspection.daemon.poll() is not None:
        raise LineFailed(f"inspectd ended with exit code {inspection.daemon.returncode}")


def start_peer(session: Session, exported: str) -> Start:
    """Start a child of the peer, wait for its results, measure and stop it."""
    picture: Path = session.folder / "first.npy"
    np.save(picture, session.frames(SIDE, 1)[0][0][..., ::-1])
    began = time.monotonic()
    with session.peer() as peer:
        peer.ask("open", name="first", runtime="openvino", path=exported, threads=session.threads)
        peer.ask("predict", name="first", frame=str(picture))
        first_s = time.monotonic() - began
        for _ in range(FRAMES - 1):
            peer.ask("predict", name="first", frame=str(picture))
        own, peak = resident_kb(peer.pid) / 1024, peak_kb(peer.pid) / 1024
    return Start(first_s, first_s, own, peak, own)
