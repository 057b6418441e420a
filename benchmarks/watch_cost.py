"""What drift and golden samples cost a line: throughput with both against without, in turns.

    python benchmarks/watch_cost.py --turns 5

Each turn runs the daemon with an engine that judges nothing, once without and once with ``drift`` and
``golden`` in its config, at capacity and at a fixed rate. Of each figure the median over the turns is shown,
and the median of the ratios within a turn, which does not see what the machine did between two turns.

On a machine whose own speed varies by more than a hundredth, that shows no hundredth. So an account comes
first: what the event loop does for a part, in its thread's processor time, and which share of a core the
thread takes that looks at parts.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from null_engine import SIZE, make_null_engine
from throughput import measure
from tqdm import tqdm

from calibration.calibration_file import read_calibration, write_calibration
from calibration.drift_baseline import Recorder
from daemon.capture.drivers.simulated import SimulatedLine
from daemon.config import load_config
from daemon.delivery.drift_watch import DriftWatch
from daemon.inspectctl.cli import main as inspectctl
from daemon.judging.ledger import CapturedFrame, FrameKey
from daemon.load import load_products
from pictures.frames import Frame

FIGURES = ("per_second", "daemon_cpu_us_per_verdict_once_it_runs")
BASELINE = 60
OFFERED_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=60_000, help="at capacity (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1000, help="of the second part (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of the second part (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {
        f"{part}, {watched}": []
        for part in ("at capacity", f"at {options.rate:g}/s")
        for watched in ("without", "with")
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        print(account(folder), flush=True)
        for turn in tqdm(range(options.turns), desc="turns", disable=None):
            # The other one first in every second turn: what warms up helps neither.
            for watched in ("without", "with") if turn % 2 else ("with", "without"):
                for part, frames, fps in (
                    ("at capacity", options.frames, None),
                    (f"at {options.rate:g}/s", int(options.rate * options.seconds), options.rate),
                ):
                    config = write_config(folder, frames, fps, watched=watched == "with")
                    found[f"{part}, {watched}"].append(measure(config, frames))
                    if options.json is not None:
                        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def prepare(folder: Path) -> None:
    """Make an engine, a calibration that knows how parts look, and two golden samples."""
    _, calibration = make_null_engine(folder)
    recorder, line = Recorder(), SimulatedLine(seed=0, width=SIZE, height=SIZE)
    pictures = [line.frame(index)[0] for index in range(BASELINE)]
    for picture in pictures:
        recorder.see(picture)
    for picture in pictures:
        score = float(picture[1, 2, 0])
        recorder.measure(picture, score, np.full((1, 1), score, np.float32))
    file = folder / calibration
    write_calibration(file, read_calibration(file).model_copy(update={"drift": recorder.baseline()}))
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), pictures[index])
    config = write_config(folder, 1, None, watched=False)
    samples = [str(folder / f"{index}.png") for index in range(2)]
    assert inspectctl(["golden", "add", "--config", str(config), "--good", *samples]) == 0


class _Slot:
    """Holds one frame."""

    picture_size = None

    def __init__(self, frame: Frame) -> None:
        self.slots = [frame]

    def free(self, slot: int) -> None:
        pass


def account(folder: Path) -> str:
    """Offer parts as fast as they can be, and say what that took of the processor."""
    config = write_config(folder, 1, None, watched=True)
    [product] = load_products(load_config(config), config, {}).values()
    watch = DriftWatch(1_000_000, None, lambda news: None)
    watch.take_up([product])
    frame = SimulatedLine(seed=0, width=SIZE, height=SIZE).frame(0)[0]
    captured = CapturedFrame(FrameKey("top", 1), product, _Slot(frame), 0, 0, 1, None, None)
    anomaly_map = np.full((1, 1), 0.1, np.float32)

    def until(end_s: float, offers: bool) -> tuple[int, float]:
        """Give how many parts came, and what this thread took for them."""
        parts, began_s = 0, time.thread_time()
        while time.monotonic() < end_s:
            for _ in range(100):
                if offers:
                    watch.offer(captured, 0.1, anomaly_map)
            parts += 100
        return parts, time.thread_time() - began_s

    until(time.monotonic() + 1, offers=True)
    counted, empty_s = until(time.monotonic() + 1, offers=False)
    all_s, began_s = time.process_time(), time.monotonic()
    looked_before = watch.health(None, ["top"])["top"].parts
    offered, own_s = until(began_s + OFFERED_S, offers=True)
    thread_s, took_s = time.process_time() - all_s - own_s, time.monotonic() - began_s
    looked = watch.health(None, ["top"])["top"].parts - looked_before
    watch.close()
    return (
        f"the event loop takes {(own_s / offered - empty_s / counted) * 1e6:.2f} µs for a part; the thread "
        f"takes {thread_s / took_s:.2%} of a core for {looked / took_s:.1f} parts per second, "
        f"{thread_s / looked * 1e6:.0f} µs each"
    )


def write_config(folder: Path, frames: int, fps: float | None, *, watched: bool) -> Path:
    """Write the config of a line that ends after so many frames."""
    source = f"simulated://?seed=0&width={SIZE}&height={SIZE}&cached=16&parts={frames}"
    camera = {"source": source, "waiting": 64} | ({} if fps is None else {"fps": fps})
    for file in folder.glob("null.journal*"):
        file.unlink()
    config = {
        "line": "null",
        "engine": "null.engine",
        "calibration": "null.calibration.yaml",
        "publish": f"ipc://{folder}/publish",
        "journal": {"file": "null.journal", "max_mb": 4000},
        "deadline_ms": 10_000,
        "threads": 1,
        "cameras": {"top": camera},
    } | ({"drift": {}, "golden": {"every_h": 4, "on_failure": "stop"}} if watched else {})
    path = folder / "null.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Lay the result out in Markdown."""
    lines = ["| | without | with | ratio within a turn, median (least, most) |", "|---|--:|--:|--:|"]
    for part in dict.fromkeys(name.rpartition(", ")[0] for name in found):
        for figure in FIGURES:
            without, with_both = (
                np.array([run[figure] for run in found[f"{part}, {watched}"]])
                for watched in ("without", "with")
            )
            ratios = with_both / without
            lines.append(
                f"| {part}: {figure} | {np.median(without):,.0f} | {np.median(with_both):,.0f} | "
                f"{np.median(ratios):.3f} ({ratios.min():.3f}, {ratios.max():.3f}) |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
