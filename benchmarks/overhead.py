"""What the daemon around the engine costs: its throughput against the bare engine's, alternating in one run.

    python benchmarks/overhead.py ENGINE CALIBRATION

The bare engine judges full batches from memory in a loop. The daemon gets frames from a simulated camera that
waits for room, in its own process, and its verdicts are counted where a subscriber receives them.
A second part sends frames at a fixed rate and measures capture → verdict received.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from inspection import Inspection, summary

from calibration.calibration_file import load_calibration
from daemon.capture.drivers.simulated import SimulatedLine
from engine_runtime.open import open_engine
from pictures.frames import fit


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=200, help="per run (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=12, help="of the second part (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    bare, daemon = [], []
    for number in range(options.rounds):
        bare.append(bare_engine(options))
        daemon.append(through_the_daemon(options, fps=None)["fps"])
        ratio = daemon[-1] / bare[-1]
        print(f"round {number + 1}: bare engine {bare[-1]:.1f} fps, daemon {daemon[-1]:.1f} fps: {ratio:.1%}")
    paced = through_the_daemon(options, fps=options.fps)
    ratios = [ours / alone for ours, alone in zip(daemon, bare, strict=True)]
    result = {
        "frames_per_run": options.frames,
        "bare_engine_fps": [round(value, 2) for value in bare],
        "daemon_fps": daemon,
        "daemon_share": {
            "median": round(statistics.median(ratios), 4),
            "lowest": round(min(ratios), 4),
            "highest": round(max(ratios), 4),
        },
        f"at_{options.fps:g}_fps": {
            **{key: paced[key] for key in ("frames", "verdicts", "faults", "fps", "latency_ms")},
            "p99_in_frame_times": round(paced["latency_ms"]["p99"] * options.fps / 1000, 2),
        },
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def bare_engine(options: argparse.Namespace) -> float:
    """Give the frames per second of the engine alone."""
    engine = open_engine(options.engine)
    manifest = engine.manifest
    quantiles = load_calibration(
        options.calibration, manifest.payload_sha256, manifest.maps
    ).quantiles_array()
    line = SimulatedLine(seed=9, width=256, height=256)
    frames = [fit(line.frame(index)[0], manifest.input_size) for index in range(manifest.max_batch)]
    batches = -(-options.frames // manifest.max_batch)
    began = time.perf_counter()
    for _ in range(batches):
        engine.infer(frames, quantiles)
    took = time.perf_counter() - began
    engine.close()
    return batches * manifest.max_batch / took


def through_the_daemon(options: argparse.Namespace, *, fps: float | None) -> dict[str, Any]:
    """Run the daemon on simulated parts and give the figures of its verdicts."""
    frames = options.frames if fps is None else max(options.frames, round(fps * 20))
    source = f"simulated://?seed=9&width=256&height=256&cached=8&parts={frames}"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "line.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "line": "overhead",
                    "engine": str(options.engine.resolve()),
                    "calibration": str(options.calibration.resolve()),
                    "publish": f"ipc://{folder}/verdicts",
                    "deadline_ms": 60_000,
                    "cameras": {"simulated": {"source": source} | ({"fps": fps} if fps else {})},
                }
            )
        )
        inspection = Inspection(config)
        inspection.wait()
    assert len(inspection.verdicts) == inspection.captured == frames
    return summary(inspection, lambda part: False)


if __name__ == "__main__":
    main()
