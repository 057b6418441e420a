"""Whether each part on a moving belt gets one verdict, and what finding it costs.

    python benchmarks/belt.py --parts 10000 --seed 5000 --json docs/benchmarks/belt.json
    python benchmarks/belt.py --parts 0 --video ../shared/data/video/bolts-on-belt.gif

Parts come at random times, places, angles and speeds, several at a time and not at all for a while; the belt
stops and starts (docs/simulated-line.md). A running inspectd with `present: {}` and an engine that judges
nothing gives the verdicts; the camera writes down which parts passed. Then the time of presence for one
picture is measured, in turns with what every camera does with one: cutting out and resizing.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from inspection import BIN
from null_engine import make_null_engine
from tqdm import tqdm

from daemon.capture.choice import Missed
from daemon.capture.drivers import CameraSettings, Picture, Present
from daemon.capture.drivers.open import open_camera
from daemon.capture.presence.presence import Presence
from daemon.journal.reader import JournalReader
from pictures.frames import Size, fit
from verdicts.verdict import decode_verdict

BELTS = ({"speed": 6, "stops": 0.05}, {"speed": 12, "stops": 0.1}, {"speed": 30, "stops": 0.3})
"""Average pixels from picture to picture of three belts, and the share of the time in which they stand."""
SHARES = (0.08, 0.3, 0.62)
"""Of all parts that each of them brings, so that they end at about the same time."""
TURNS = 7


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", type=int, default=10_000, help="on all belts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first belt (default: %(default)s)")
    parser.add_argument("--video", type=Path, action="append", default=[], help="in which parts are counted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.parts:
        result["belts"] = judged_belts(options.parts, options.seed)
    result["videos"] = {video.name: counted(video) for video in options.video}
    result["ms_per_picture"] = {
        f"{width}x{height}": times(width, height) for width, height in ((320, 240), (640, 480), (1280, 960))
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def judged_belts(parts: int, seed: int) -> list[dict[str, Any]]:
    """Let parts pass a running daemon, and hold its journal against the truth, for each belt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine, calibration = make_null_engine(folder)
        cameras = {}
        counts = [round(share * parts) for share in SHARES]
        for number, (belt, count) in enumerate(zip(BELTS, counts, strict=True)):
            source = f"simulated://belt?seed={seed + number}&parts={count}&truth={folder}/truth{number}"
            cameras[f"belt{number}"] = {
                "source": source + "".join(f"&{key}={value}" for key, value in belt.items()),
                "present": {},
                "waiting": 64,
            }
        config = {
            "line": "belts",
            "engine": engine,
            "calibration": calibration,
            "publish": f"ipc://{folder}/publish",
            "journal": {"file": "belts.journal", "max_mb": 1000},
            "deadline_ms": 600_000,  # what is counted is verdicts, on a machine that also does other work
            "threads": 1,
            "cameras": cameras,
        }
        path = folder / "belts.yaml"
        path.write_text(yaml.safe_dump(config))
        began_s = time.monotonic()
        wait_for(subprocess.Popen([BIN / "inspectd", "--config", path]), folder, sum(counts))
        took_s = time.monotonic() - began_s
        with JournalReader(folder / "belts.journal") as reader:
            (boot,) = reader.boots()
            verdicts = [decode_verdict(row) for row in reader.verdicts(boot, 1, 2**53 - 1)]
        rows = []
        for number, belt in enumerate(BELTS):
            truth = [json.loads(line) for line in (folder / f"truth{number}").read_text().splitlines()]
            mine = [verdict for verdict in verdicts if verdict.camera == f"belt{number}"]
            of_part = Counter(int(str(verdict.part).split()[0]) for verdict in mine if verdict.part)
            rows.append(
                belt
                | {
                    "seed": seed + number,
                    "parts": len(truth),
                    "pictures": max(entry["seen"][1] for entry in truth),
                    "verdicts": len(mine),
                    "faults": sum(verdict.decision == "fault" for verdict in mine),
                    "parts_with_two_verdicts": sum(count > 1 for count in of_part.values()),
                    "parts_without": sum(entry["part"] not in of_part for entry in truth),
                    "verdicts_without_a_part": sum(verdict.part is None for verdict in mine),
                    "seconds_for_all_belts": round(took_s, 1),
                }
            )
        return rows


def wait_for(daemon: "subprocess.Popen[bytes]", folder: Path, parts: int) -> None:
    """Show how far the belts are until the daemon ends."""
    with tqdm(total=parts, unit="part", desc="belts", disable=None) as progress:
        while daemon.poll() is None:
            lines = [file.read_bytes().count(b"\n") for file in folder.glob("truth*")]
            progress.update(sum(lines) - progress.n)
            time.sleep(0.5)
    if daemon.returncode:
        raise SystemExit(daemon.returncode)


def counted(video: Path) -> dict[str, Any]:
    """Count the parts of a video, once through."""
    settings = CameraSettings(str(video), present=Present())
    presence, camera = Presence(settings, Present()), open_camera(settings)
    pictures, taken, missed = 0, [], []
    while (picture := camera.grab()) is not None:
        pictures += 1
        for outcome in presence.look(picture, pictures):
            (missed if isinstance(outcome, Missed) else taken).append(outcome.captured_ns)
    for outcome in presence.finish(pictures):
        (missed if isinstance(outcome, Missed) else taken).append(outcome.captured_ns)
    return {"pictures": pictures, "taken_from_picture": taken, "missed": len(missed)}


def times(width: int, height: int) -> dict[str, float]:
    """Measure what presence costs for a picture, in turns with cutting out and resizing it."""
    cv2.setNumThreads(1)
    pictures = scene(width, height)
    settings = CameraSettings("nowhere", present=Present())
    looked, fitted = [], []
    for _ in range(TURNS):
        presence = Presence(settings, Present())
        began_s = time.perf_counter()
        for number, picture in enumerate(pictures):
            presence.look(picture, number * 33_000_000)
        looked.append((time.perf_counter() - began_s) / len(pictures) * 1e3)
        began_s = time.perf_counter()
        for picture in pictures:
            fit(picture.pixels, Size(256, 256))
        fitted.append((time.perf_counter() - began_s) / len(pictures) * 1e3)
    return {
        "presence_fastest": round(min(looked), 3),
        "presence_median": round(float(np.median(looked)), 3),
        "resize_fastest": round(min(fitted), 3),
        "resize_median": round(float(np.median(fitted)), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def scene(width: int, height: int) -> list[Picture]:
    """Take 150 pictures of a belt with parts a fifth of the picture wide."""
    size = f"width={width}&height={height}&diameter={width // 5}&speed={width * 0.04:.1f}"
    camera = open_camera(CameraSettings(f"simulated://belt?seed=3&{size}"))
    return [picture for _ in range(150) if (picture := camera.grab()) is not None]


if __name__ == "__main__":
    main()
