"""What the daemon itself can do, with an engine that judges nothing: verdicts per second, latency, memory.

    python benchmarks/throughput.py --frames 1000000

Frames come from simulated cameras in processes of their own, every verdict is journaled and published, and
a subscriber counts them and looks for gaps. First at capacity (cameras wait for room), then at a fixed rate,
where the added latency is measured: from the capture to the arrival at the subscriber, less the inference.
Last with more frames than can be judged before a short deadline: how late is the latest verdict that says so?

What the machine itself does to latencies is measured beside: for how long is a process held up that, one per
core, does nothing but read the clock? And how long is a frame's way at the same rate, before and after, when
nothing is done at any of its hops (relay.py)?
"""

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zmq
from inspection import BIN
from null_engine import SIZE, make_null_engine
from numpy.typing import NDArray
from relay import relayed_ms
from tqdm import tqdm

OVERLOAD = 10_000
OVERLOAD_DEADLINE_MS = 2.0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="at capacity (default: %(default)s)")
    parser.add_argument("--cameras", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="of the second part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of the second part (default: %(default)s)")
    parser.add_argument(
        "--cores", action="store_true", help="keep the daemon to the first core and its cameras to the others"
    )
    parser.add_argument("--no-journal", action="store_true", help="leave the journal out, to see its cost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    if options.cores and not others:
        parser.error("--cores: expected at least two cores, found one")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine, calibration = make_null_engine(folder)

        def run(frames: int, fps: float | None, deadline_ms: float = 10_000) -> dict[str, Any]:
            per_camera = frames // options.cameras
            config: dict[str, Any] = {
                "line": "null",
                "engine": engine,
                "calibration": calibration,
                "publish": f"ipc://{folder}/publish",
                "deadline_ms": deadline_ms,
                "threads": 1,
                "cameras": {
                    f"camera{number}": {
                        "source": f"simulated://?seed={number}&width={SIZE}&height={SIZE}"
                        f"&cached=16&parts={per_camera}",
                        "waiting": 64,
                    }
                    | ({} if fps is None else {"fps": fps / options.cameras})
                    | ({"cores": others} if options.cores else {})
                    for number in range(options.cameras)
                },
            }
            if options.cores:
                config["cores"] = [first]
            if not options.no_journal:
                config["journal"] = {"file": "null.journal", "max_mb": 4000}
                for file in folder.glob("null.journal*"):
                    file.unlink()
            path = folder / "null.yaml"
            path.write_text(yaml.safe_dump(config))
            return measure(path, per_camera * options.cameras)

        cores = len(os.sched_getaffinity(0))
        with multiprocessing.Pool(cores) as pool:
            held_up_ms = pool.map(hold_ups_ms, [5.0] * cores, chunksize=1)
        capacity = run(options.frames, None)
        print(json.dumps(capacity, indent=2))
        rate, frames = options.rate, int(options.rate * options.seconds)
        before = percentiles(relayed_ms(rate, frames))
        paced = run(frames, rate)
        after = percentiles(relayed_ms(rate, frames))
        overloaded = run(int(OVERLOAD * options.seconds), OVERLOAD, deadline_ms=OVERLOAD_DEADLINE_MS)
    result = {
        "machine_holds_each_core_up_ms": held_up_ms,
        "capacity": capacity,
        f"at_{rate:g}_per_second": paced,
        f"nothing_done_at_{rate:g}_per_second_ms": [before, after],
        f"overloaded_with_{OVERLOAD}_per_second": overloaded | {"deadline_ms": OVERLOAD_DEADLINE_MS},
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


class Tally:
    """What a subscriber learns from the verdicts, at little cost to the machine it shares with the line."""

    def __init__(self, deadline_ms: float) -> None:
        self._deadline_ms = deadline_ms
        self.verdicts = self.gaps = 0
        self.first_s = self.last_s = 0.0
        self.reasons: Counter[str] = Counter()
        self.late_ms: list[float] = []
        self.shares_ms: list[tuple[float, float, float]] = []
        self._last_seq = 0

    def take(self, payload: bytes) -> None:
        """Count a verdict; every fault and each twentieth of the others is looked into."""
        now_s = time.time()
        self.verdicts += 1
        self.first_s, self.last_s = self.first_s or now_s, now_s
        start = payload.index(b'"seq":') + 6
        seq = int(payload[start : payload.index(b",", start)])
        self.gaps += seq != self._last_seq + 1
        self._last_seq = seq
        fault = b'"decision":"fault"' in payload
        if not fault and self.verdicts % 20:
            return
        verdict = json.loads(payload)
        took = verdict["latency_ms"]
        if fault:
            self.reasons[verdict["reason"]] += 1
            if verdict["reason"] == "deadline":
                self.late_ms.append(took["total"] - self._deadline_ms)
        elif took["infer"] is not None:
            captured_s = datetime.fromisoformat(verdict["captured_at"]).timestamp()
            decided = took["total"] - took["wait"] - took["infer"]
            arrived = (now_s - captured_s) * 1000 - took["total"]
            self.shares_ms.append((took["wait"], decided, arrived))


def measure(config: Path, frames: int) -> dict[str, Any]:
    """Run a daemon to its end and say what it did."""
    content = yaml.safe_load(config.read_text())
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    socket.rcvtimeo = 10_000
    socket.reconnect_ivl = 10
    socket.subscribe(b"")
    socket.connect(content["publish"])
    daemon = subprocess.Popen([BIN / "inspectd", "--config", config])
    tally = Tally(content["deadline_ms"])
    memory_kb: dict[int, int] = {}
    cpu_s: dict[int, float] = {}
    with tqdm(total=frames, unit="verdict", disable=None) as progress:
        while tally.verdicts < frames:
            try:  # one call less than to poll
                topic, payload = socket.recv(), socket.recv()
            except zmq.Again:
                break
            if topic.endswith(b"/-/health"):
                continue
            tally.take(payload)
            if tally.verdicts in {frames // 10, frames}:
                memory_kb[tally.verdicts] = resident_kb(daemon.pid)
                cpu_s[tally.verdicts] = cpu_seconds(daemon.pid)
            if tally.verdicts % 1000 == 0:
                progress.update(1000)
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait()
    context.destroy(linger=0)
    early, late = memory_kb.get(frames // 10, 0), memory_kb.get(frames, 0)
    started_s, ended_s = cpu_s.get(frames // 10, 0.0), cpu_s.get(frames, 0.0)
    shares = np.array(tally.shares_ms)
    return {
        "frames": frames,
        "verdicts": tally.verdicts,
        "gaps_in_seq": tally.gaps,
        "faults": dict(tally.reasons),
        "deadline_faults_late_by_ms": percentiles(np.array(tally.late_ms)) if tally.late_ms else None,
        "exit_code": code,
        "per_second": round((tally.verdicts - 1) / (tally.last_s - tally.first_s), 1),
        "daemon_cpu_us_per_verdict": round(ended_s / tally.verdicts * 1e6, 1),  # its start, too
        "daemon_cpu_us_per_verdict_once_it_runs": round((ended_s - started_s) / (0.9 * frames) * 1e6, 1),
        "added_latency_ms": percentiles(shares.sum(1)),
        "of_which": {
            "capture_to_lane": percentiles(shares[:, 0]),
            "score_to_decision": percentiles(shares[:, 1]),
            "decision_to_subscriber": percentiles(shares[:, 2]),  # with the journal
        },
        "resident_mb_after_a_tenth": round(early / 1024, 1),
        "resident_mb_at_the_end": round(late / 1024, 1),
        "growth": round(late / early - 1, 4) if early else None,
    }


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Give the middle and the ends that matter."""
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9)).round(3).tolist()
    return {"p50": p50, "p99": p99, "p99.9": p999, "max": round(float(values.max()), 3)}


def hold_ups_ms(seconds: float) -> list[float]:
    """Read the clock without a pause, and list by how much it jumped wherever that was over a millisecond."""
    jumps: list[float] = []
    before = start = time.perf_counter()
    while before < start + seconds:
        now = time.perf_counter()
        if now - before > 0.001:
            jumps.append(round((now - before) * 1000, 1))
        before = now
    return jumps


def resident_kb(pid: int) -> int:
    """Read how much memory a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    """Read the CPU time of a process since its start, in its threads and the kernel."""
    # Not from /proc/PID/stat: its clock ticks beat with a camera that delivers on the millisecond.
    schedules = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(schedule.read_text().split()[0]) for schedule in schedules) / 1e9


if __name__ == "__main__":
    main()
