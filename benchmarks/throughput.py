"""What the daemon itself can do, with an engine that judges nothing: verdicts per second, latency, memory.

    python benchmarks/throughput.py --frames 1000000

Frames come from simulated cameras in processes of their own, every verdict is journaled and published, and
a subscriber counts them and looks for gaps. First at capacity (cameras wait for room), then at a fixed rate,
where the added latency is measured: from the capture to the arrival at the subscriber, less the inference.
"""

import argparse
import json
import signal
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zmq
from inspection import BIN
from null_engine import SIZE, make_null_engine
from tqdm import tqdm


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="at capacity (default: %(default)s)")
    parser.add_argument("--cameras", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="of the second part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of the second part (default: %(default)s)")
    parser.add_argument("--no-journal", action="store_true", help="leave the journal out, to see its cost")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine, calibration = make_null_engine(folder)

        def run(frames: int, fps: float | None) -> dict[str, Any]:
            per_camera = frames // options.cameras
            config: dict[str, Any] = {
                "line": "null",
                "engine": engine,
                "calibration": calibration,
                "publish": f"ipc://{folder}/publish",
                "deadline_ms": 10_000,
                "threads": 1,
                "cameras": {
                    f"camera{number}": {
                        "source": f"simulated://?seed={number}&width={SIZE}&height={SIZE}"
                        f"&cached=16&parts={per_camera}",
                        "waiting": 64,
                    }
                    | ({} if fps is None else {"fps": fps / options.cameras})
                    for number in range(options.cameras)
                },
            }
            if not options.no_journal:
                config["journal"] = {"file": "null.journal", "max_mb": 4000}
                for file in folder.glob("null.journal*"):
                    file.unlink()
            path = folder / "null.yaml"
            path.write_text(yaml.safe_dump(config))
            return measure(path, per_camera * options.cameras)

        capacity = run(options.frames, None)
        print(json.dumps(capacity, indent=2))
        paced = run(int(options.rate * options.seconds), options.rate)
    result = {"capacity": capacity, f"at_{options.rate:g}_per_second": paced}
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(config: Path, frames: int) -> dict[str, Any]:
    """Run a daemon to its end and say what it did."""
    content = yaml.safe_load(config.read_text())
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = 0
    socket.reconnect_ivl = 10
    socket.subscribe(b"")
    socket.connect(content["publish"])
    daemon = subprocess.Popen([BIN / "inspectd", "--config", config])
    verdicts = gaps = faults = 0
    last_seq = 0
    first_s = last_s = 0.0
    added_ms: list[float] = []
    memory_kb: dict[int, int] = {}
    cpu_s = 0.0
    with tqdm(total=frames, unit="verdict", disable=None) as progress:
        while verdicts < frames:
            if not socket.poll(10_000):
                break
            topic, payload = socket.recv_multipart()
            if topic.endswith(b"/-/health"):
                continue
            now_s = time.time()
            verdicts += 1
            first_s, last_s = first_s or now_s, now_s
            # Nothing but what is asked of every verdict, so that the subscriber takes little of the machine.
            start = payload.index(b'"seq":') + 6
            seq = int(payload[start : payload.index(b",", start)])
            gaps += seq != last_seq + 1
            last_seq = seq
            if verdicts % 20 == 0:
                verdict = json.loads(payload)
                captured_s = datetime.fromisoformat(verdict["captured_at"]).timestamp()
                added_ms.append((now_s - captured_s) * 1000 - (verdict["latency_ms"]["infer"] or 0.0))
                faults += verdict["decision"] == "fault"
            if verdicts in {frames // 10, frames}:
                memory_kb[verdicts] = resident_kb(daemon.pid)
                cpu_s = cpu_seconds(daemon.pid)
            if verdicts % 1000 == 0:
                progress.update(1000)
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait()
    context.destroy(linger=0)
    early, late = memory_kb.get(frames // 10, 0), memory_kb.get(frames, 0)
    p50, p99, p999 = np.percentile(added_ms, (50, 99, 99.9)).round(3).tolist()
    return {
        "frames": frames,
        "verdicts": verdicts,
        "gaps_in_seq": gaps,
        "faults_seen": faults,
        "exit_code": code,
        "per_second": round((verdicts - 1) / (last_s - first_s), 1),
        "daemon_cpu_us_per_verdict": round(cpu_s / verdicts * 1e6, 1),
        "added_latency_ms": {"p50": p50, "p99": p99, "p99.9": p999},
        "resident_mb_after_a_tenth": round(early / 1024, 1),
        "resident_mb_at_the_end": round(late / 1024, 1),
        "growth": round(late / early - 1, 4) if early else None,
    }


def resident_kb(pid: int) -> int:
    """Read how much memory a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    """Read the CPU time of a process since its start, in its threads and the kernel."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / 100


if __name__ == "__main__":
    main()
