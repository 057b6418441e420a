"""The whole way on a simulated line: record, train, build, calibrate, inspect (``make demo``)."""

import argparse
import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.inspection import BIN, Inspection, command, summary
from daemon.capture.drivers.simulated import Part
from engine_runtime.engine_file import read_manifest

ROOT = Path(__file__).resolve().parents[1]
FASTEST_FPS = 8
"""As ``configs/demo.yaml`` has it."""
SHARE_OF_TIME = 0.25
"""For the engine: a machine that others use may be twice as slow, and no part may come too late."""


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45, help="of inspection (default: %(default)s)")
    parser.add_argument("--good", type=int, default=300, help="parts to learn from, and to calibrate on")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="(default: %(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    out: Path = options.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    config = out / "line3.yaml"
    config.write_text((ROOT / "configs/demo.yaml").read_text())

    # Two recordings: what a model was trained on says nothing about how it scores new parts.
    command("inspectctl", "record", "simulated://?seed=1", "--out", out / "train", "--count", options.good)
    command("inspectctl", "record", "simulated://?seed=2", "--out", out / "held-out", "--count", options.good)
    command("train-model", "--data", out / "train", "--method", "padim", "--out", out / "flange.onnx")
    command("build-engine", out / "flange.onnx", "--fast")
    command("calibrate", out / "flange.engine", "--good", out / "held-out", "--false-reject-rate", 0.004)
    pace(config, out / "flange.engine")

    print(f"\n$ inspectd --config {config}    # for {options.seconds:g} s; inspectctl tail prints rejects")
    inspection = Inspection(config)
    tail = subprocess.Popen([BIN / "inspectctl", "tail", "--config", config, "--decisions", "reject,fault"])
    try:
        inspection.begin()
        time.sleep(options.seconds)
        inspection.stop()
    finally:
        tail.terminate()
        tail.wait()

    result = summary(inspection, lambda part: Part.parse(part).defect is not None)
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    report(inspection, result)
    picture(inspection, out / "reject.png")
    print(
        f"\npictures of the rejects: {out / 'rejects'}, one of them beside its heat map: {out / 'reject.png'}"
    )
    print(f"summary: {out / 'summary.json'}")
    print(f"the whole demo took {time.monotonic() - began:.0f} s")
    print("\nsee it go on as operators do: make demo-line, then open http://127.0.0.1:8321/")


def pace(config: Path, engine: Path) -> None:
    """Have parts come as fast as this machine judges them with most of its time to spare."""
    fps = min(FASTEST_FPS, 1000 * SHARE_OF_TIME / read_manifest(engine).proof.latency_ms[1])
    config.write_text(config.read_text().replace(f"fps: {FASTEST_FPS}", f"fps: {max(fps, 1):.1f}"))


def picture(inspection: Inspection, path: Path) -> None:
    """Put a scratched part beside its heat map: the picture in the README."""
    for verdict in inspection.verdicts:
        if verdict.archive and Part.parse(verdict.part or "").defect == "scratch":
            overlay = Path(verdict.archive)
            frame = overlay.with_name(overlay.name.replace(".overlay.jpg", ".png"))
            cv2.imwrite(str(path), np.hstack([cv2.imread(str(frame)), cv2.imread(str(overlay))]))
            return


def report(inspection: Inspection, result: dict[str, Any]) -> None:
    """Print what was caught, by kind of defect."""
    parts = [(Part.parse(verdict.part or ""), verdict.decision) for verdict in inspection.verdicts]
    total = Counter(part.defect for part, _ in parts if part.defect)
    caught = Counter(part.defect for part, decision in parts if part.defect and decision == "reject")
    good = result["verdicts"] - result["defective"]
    latency = result["latency_ms"]
    print(f"\n{result['frames']} frames, {result['verdicts']} verdicts, {result['faults']} faults")
    print(f"caught          {result['caught']} of {result['defective']} defective parts")
    for kind in sorted(total):
        print(f"  {kind:<17} {caught[kind]} of {total[kind]}")
    print(f"missed          {result['missed']}")
    print(f"falsely rejected {result['false_rejects']} of {good} good parts")
    print(f"capture to verdict received: {latency['p50']} ms median, {latency['p99']} ms p99")


if __name__ == "__main__":
    main()
