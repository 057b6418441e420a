"""How long an engine takes on this CPU: the model as each runtime runs it, and as build-engine chose to.

    python benchmarks/cpu_engine.py --sizes s --batches 1 8 --json engines.json

The models are untrained, which changes no time. The three engines of a size take turns within one run, so
whatever else the machine does disturbs all alike.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from comparison.models import draw_frames, write_frames, write_untrained
from inspection import BIN
from tqdm import tqdm

from engine_build.device import cpu_name, usable_cores
from engine_runtime.engine import Engine, uncalibrated
from engine_runtime.open import open_engine
from pictures.frames import Size

ENGINES = {
    "openvino": ("--fast", "--runtime", "openvino"),
    "onnxruntime": ("--fast", "--runtime", "onnxruntime"),
    "ours": (),
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("xs", "s", "m"), default=["s", "m", "xs"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="N", help="(default: 1 8)")
    parser.add_argument("--image", type=int, default=256, metavar="N", help="side, pixels (default: 256)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="(default: all cores)")
    parser.add_argument("--laps", type=int, default=15, help="per engine and batch (default: 15)")
    parser.add_argument("--time-limit", default="60", metavar="S", help="of build-engine (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "device": cpu_name(),
        "threads": options.threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("openvino", "onnxruntime")},
        "image": options.image,
        "sizes": {},
    }
    print(f"{result['device']}, {options.threads} threads, load {result['load_before']:.1f}")
    print(f"{'':10}{'batch':>6}{'engine':>14}{'median, ms':>12}{'10–90 %, ms':>18}{'× openvino':>12}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            engines = build(Path(name), size, options)
            result["sizes"][size] = measure(size, engines, options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def build(folder: Path, size: Any, options: argparse.Namespace) -> dict[str, Engine]:
    """Export a model of a size and build the three engines with the user's own commands."""
    image = Size(options.image, options.image)
    model = folder / "model.onnx"
    write_untrained(folder / "model.pt", model, size, image)
    parity = write_frames(folder / "parity", image, 2)
    engines = {}
    for name, arguments in ENGINES.items():
        limit = () if arguments else ("--time-limit", options.time_limit)
        target = folder / f"{name}.engine"
        subprocess.run(
            [
                *(BIN / "build-engine", model, "-o", target, *arguments, *limit),
                *("--threads", f"{options.threads}", "--max-batch", f"{max(options.batches)}"),
                *("--parity-images", parity),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        engines[name] = open_engine(target, threads=options.threads)
    return engines


def measure(size: str, engines: dict[str, Engine], options: argparse.Namespace) -> dict[str, Any]:
    """Let the engines take turns at every batch size and print a row for each."""
    ours = engines["ours"].manifest
    result: dict[str, Any] = {
        "runtime": ours.runtime,
        "winograd": ours.winograd,
        "largest_score_difference": ours.proof.largest_score_difference,
        "measured": [row.model_dump() for row in ours.measured],
        "batches": {},
    }
    for batch in options.batches:
        frames = list(draw_frames(ours.input_size, batch))
        laps: dict[str, list[float]] = {name: [] for name in engines}
        for engine in engines.values():
            engine.infer(frames, uncalibrated(engine.manifest.maps))
        for _ in tqdm(range(options.laps), desc=f"{size}, batch {batch}", leave=False, disable=None):
            for name, engine in engines.items():
                started = time.perf_counter()
                engine.infer(frames, uncalibrated(engine.manifest.maps))
                laps[name].append((time.perf_counter() - started) * 1e3)
        base = statistics.median(laps["openvino"])
        for name, times in laps.items():
            low, median, high = np.percentile(times, (10, 50, 90)).tolist()
            row = {"median_ms": median, "p10_ms": low, "p90_ms": high, "fastest_ms": min(times)}
            result["batches"].setdefault(batch, {})[name] = row | {"times_openvino": base / median}
            print(
                f"{size:10}{batch:>6}{name:>14}{median:>12.1f}{low:>10.1f}–{high:<7.1f}{base / median:>12.2f}"
            )
    return result


if __name__ == "__main__":
    main()
