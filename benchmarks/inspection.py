"""The way from good images to verdicts, driven through the product's own commands and sockets."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from calibration.detection import auroc
from verdicts import LineSilent, Verdict, VerdictsLost, subscribe

BIN = Path(sys.executable).parent


def command(*arguments: object) -> None:
    """Run one of the product's commands with its output on ours; end the benchmark when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ {' '.join(words)}", flush=True)
    done = subprocess.run([BIN / words[0], *words[1:]], check=False)
    if done.returncode != 0:
        sys.exit(f"{words[0]} ended with exit code {done.returncode}")


def split(images: Sequence[Path], folders: dict[Path, int]) -> None:
    """Link the images into folders of the given sizes, evenly spread over the order they were taken in."""
    total = sum(folders.values())
    left = dict(folders)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for number, image in enumerate(images):
        # Whichever folder is furthest behind its share gets the next image.
        done = number + 1
        folder = max(left, key=lambda f: folders[f] * done / total - (folders[f] - left[f]))
        (folder / image.name).symlink_to(image.resolve())
        left[folder] -= 1


class Inspection:
    """A running daemon, and a subscriber that keeps every verdict with the time of its arrival."""

    def __init__(self, config: Path, environment: Mapping[str, str] | None = None) -> None:
        content = yaml.safe_load(config.read_text())
        self.verdicts: list[Verdict] = []
        self.arrived_s: list[float] = []
        """When this process had each verdict, by the clock that stamps the captures."""
        self.captured = 0
        self._begun = threading.Event()
        self._subscription = subscribe(content["publish"], line=content["line"], silence_s=30)
        self.daemon = subprocess.Popen([BIN / "inspectd", "--config", config], env=environment)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        try:
            for verdict in self._subscription:
                self.arrived_s.append(time.time())
                self.verdicts.append(verdict)
                self._begun.set()
        except (VerdictsLost, LineSilent) as error:
            if self.daemon.poll() is None:  # of a daemon that has ended, silence is what one expects
                print(f"subscriber: {error}", file=sys.stderr)

    def begin(self) -> None:
        """Wait for the first verdict: on a busy machine, runtime and cameras take their time to open."""
        while not self._begun.wait(0.1) and self._listener.is_alive() and self.daemon.poll() is None:
            pass

    def stop(self) -> None:
        """End the daemon as systemd would, and take its last verdicts."""
        self.daemon.send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait for the daemon's own end, and take its last verdicts."""
        code = self.daemon.wait()
        give_up = time.monotonic() + 5
        while time.monotonic() < give_up:
            health = self._subscription.health
            if health is not None and health.state == "stopping" and health.seq == len(self.verdicts):
                break
            time.sleep(0.05)
        if self._subscription.health is not None:
            self.captured = sum(camera.captured for camera in self._subscription.health.cameras.values())
        if code != 0:
            sys.exit(f"inspectd ended with exit code {code}")


def summary(inspection: Inspection, defective: Callable[[str], bool]) -> dict[str, Any]:
    """Compare the verdicts with the truth; ``defective`` tells it from a verdict's part."""
    verdicts = inspection.verdicts
    wrong = [verdict for verdict in verdicts if defective(verdict.part or "")]
    good = [verdict for verdict in verdicts if not defective(verdict.part or "")]
    decisions = Counter(verdict.decision for verdict in verdicts)
    caught = sum(verdict.decision == "reject" for verdict in wrong)
    false_rejects = sum(verdict.decision == "reject" for verdict in good)
    good_scores, wrong_scores = _scores(good), _scores(wrong)
    both = len(good_scores) and len(wrong_scores)
    captured_s = np.array([datetime.fromisoformat(v.captured_at).timestamp() for v in verdicts])
    arrived_s = np.array(inspection.arrived_s)
    p50, p99 = np.percentile(1e3 * (arrived_s - captured_s), (50, 99)).round(2).tolist()
    return {
        "frames": inspection.captured,
        "verdicts": len(verdicts),
        "defective": len(wrong),
        "caught": caught,
        "missed": len(wrong) - caught - sum(verdict.decision == "fault" for verdict in wrong),
        "false_rejects": false_rejects,
        "faults": decisions["fault"],
        "auroc": round(auroc(good_scores, wrong_scores), 4) if both else None,
        "latency_ms": {"p50": p50, "p99": p99},
        "fps": round((len(verdicts) - 1) / (arrived_s[-1] - arrived_s[0]), 2),
    }


def _scores(verdicts: Iterable[Verdict]) -> NDArray[np.float64]:
    return np.array([verdict.score for verdict in verdicts if verdict.score is not None], dtype=np.float64)


def watch(inspection: Inspection, seconds: float) -> dict[str, float]:
    """Measure the verdicts that come in some seconds."""
    first, began = len(inspection.verdicts), time.monotonic()
    before_ms = cpu_ms(inspection.daemon.pid)
    time.sleep(seconds)
    took_ms = cpu_ms(inspection.daemon.pid) - before_ms
    verdicts = inspection.verdicts[first:]
    took = np.array([verdict.latency_ms.total for verdict in verdicts])
    p50, p99 = np.percentile(took, (50, 99)).round(3).tolist()
    return {
        "per_second": round(len(verdicts) / (time.monotonic() - began), 2),
        "p50_ms": p50,
        "p99_ms": p99,
        "daemon_ms_per_verdict": round(took_ms / len(verdicts), 3),
        "faults": float(sum(verdict.decision == "fault" for verdict in verdicts)),
    }


def cpu_ms(pid: int) -> float:
    """Give the processor time that a process took so far, which other load does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Give the memory of a process, as the kernel counts it as resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)
