"""How much an open page grows while an hour's verdicts come, simulated faster.

    python benchmarks/page_heap.py ENGINE CALIBRATION

Chromium has the page Line open, which takes each verdict and each picture of four fast cameras. The heap is
measured after the rubbish was collected, once the page is warm and again at the end. It needs
/usr/bin/chromium and Playwright.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from inspection import Inspection
from operators_page import CAMERAS, served

HOUR = 90_000  # verdicts of 25 parts per second
WARM = 2_000
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--verdicts", type=int, default=HOUR, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="of the frames (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=100, help="of each camera (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = write_line(Path(name), options)
        inspection = Inspection(config)
        wait_for(inspection, 100)
        with served(Path(name), config) as (address, _):
            print(json.dumps(watched(address, inspection, options.verdicts), indent=2))
        inspection.stop()


def write_line(folder: Path, options: argparse.Namespace) -> Path:
    """Write the config of a fast line."""
    source = "simulated://?seed={}&width={size}&height={size}&cached=8&defects=0.02"
    content = {
        "line": "line3",
        "engine": str(options.engine.resolve()),
        "calibration": str(options.calibration.resolve()),
        "publish": f"ipc://{folder}/verdicts",
        "journal": {"file": "line.journal"},
        "archive": {"folder": "rejects"},
        "cameras": {
            f"camera{number}": {"source": source.format(number, size=options.size), "fps": options.fps}
            for number in range(CAMERAS)
        },
    }
    config = folder / "line.yaml"
    config.write_text(yaml.safe_dump(content))
    return config


def watched(address: str, inspection: Inspection, verdicts: int) -> dict[str, float]:
    """Have the page open while so many verdicts come."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        page = browser.new_page()
        page.goto(f"{address}/line3/line")
        page.wait_for_selector(".latest[data-at]")
        debugger = page.context.new_cdp_session(page)
        first = len(inspection.verdicts)
        wait_for(inspection, first + WARM)
        before = heap_mb(debugger)
        began = time.monotonic()
        wait_for(inspection, first + WARM + verdicts)
        after = heap_mb(debugger)
        took = time.monotonic() - began
        browser.close()
    return {
        "verdicts": len(inspection.verdicts) - first - WARM,
        "seconds": round(took, 1),
        "heap_before_mb": before,
        "heap_after_mb": after,
        "grown_mb": round(after - before, 2),
    }


def wait_for(inspection: Inspection, verdicts: int) -> None:
    """Wait until so many verdicts have come."""
    while len(inspection.verdicts) < verdicts:
        time.sleep(0.05)


def heap_mb(debugger: Any) -> float:
    """Measure what a page holds after its rubbish was collected."""
    debugger.send("HeapProfiler.collectGarbage")
    return round(float(debugger.send("Runtime.getHeapUsage")["usedSize"]) / 1e6, 2)


if __name__ == "__main__":
    main()
