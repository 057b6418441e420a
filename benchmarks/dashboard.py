"""What a dashboard with ten open pages costs its line, and how fast its pages are.

    python benchmarks/dashboard.py                     # line and pixel, four minutes
    python benchmarks/dashboard.py --parts answers     # two minutes
    python benchmarks/dashboard.py --parts heap        # four minutes and more

line     Four cameras with 25 drawn parts per second each, preview, journal and archive. Turns with a
         dashboard and ten open pages, which take everything live and ask for pictures as they come, alternate
         with turns without a dashboard. The pages run with nice 15, as browsers are elsewhere.
pixel    How long a verdict takes from its capture to the screen: ten pages, one of which is Chromium's.
answers  A roll-up of 1,000,000 verdicts, of which 100,000 are rejects, is asked for the first page of the
         gallery and for previews of thresholds.
heap     How much Chromium's page grows while an hour's verdicts come, faster.

It builds the engine itself. Chromium is Debian's, driven by Playwright.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder: "dashboard" is the package
sys.path.append(str(Path(__file__).parents[1] / "tests"))

from inspection import BIN, Inspection, cpu_ms, memory_mb, watch
from page_rig import chromium, drawn_line, drawn_parts

from fuzzing.free_port import free_port

PAGES = 10
CAMERAS = 4
FPS = 25
FASTER_FPS = 100
DEFECTS = 0.1
WARM_UP_S = 3.0
LINE_NICE = -10
"""Of the line's unit, for root alone."""
IDLE = ("chrt", "--idle", "0")
"""As the dashboard's unit runs it. Browsers run on other machines, and may not take from the line, either."""
HOUR = 90_000  # verdicts of 25 parts per second
WARM = 2_000
BOOT = "b0" * 8
SEEN = """(count) => new Promise((done) => {
    const seen = new Map();
    const look = () => {
        for (const one of document.querySelectorAll('.latest[data-at]')) {
            const at = Number(one.dataset.at);
            if (!seen.has(at)) seen.set(at, Date.now() - at);
        }
        if (seen.size < count) requestAnimationFrame(look);
        else done([...seen.values()].slice(10));
    };
    look();
})"""


FIRST_SCREEN = """() => new Promise((done) => {
    const began = performance.now();
    document.querySelector('a[href="/line3/rejects"]').click();
    const look = () => document.querySelectorAll('.window .thumb b').length >= 15
        ? done(performance.now() - began) : requestAnimationFrame(look);
    look();
})"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pages", nargs=2, metavar=("ADDRESS", "NUMBER"), help=argparse.SUPPRESS)
    parser.add_argument("--parts", default="line,pixel", help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=6, help="with and without each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of each turn (default: %(default)s)")
    parser.add_argument("--verdicts", type=int, default=1_000_000, help="of answers (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    if options.pages is not None:
        address, number = options.pages
        asyncio.run(open_pages(address, int(number)))
        return
    result: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.nice(LINE_NICE)
    with tempfile.TemporaryDirectory() as name:
        for part in options.parts.split(","):
            folder = Path(name, part)
            folder.mkdir()
            result[part] = PARTS[part](folder, options)
            print(json.dumps({part: result[part]}, indent=2), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


@contextmanager
def inspected(folder: Path, fps: float) -> Iterator[tuple[Path, Inspection]]:
    """Run a line of four cameras."""
    cameras = {f"camera{number}": drawn_parts(number, fps, DEFECTS) for number in range(CAMERAS)}
    config = drawn_line(folder, cameras, threads=1)
    inspection = Inspection(config)
    wait_for(inspection, 100)
    try:
        yield config, inspection
    finally:
        inspection.stop()


def wait_for(inspection: Inspection, verdicts: int) -> None:
    """Wait until so many verdicts have come."""
    while len(inspection.verdicts) < verdicts:
        if inspection.daemon.poll() is not None:
            sys.exit("inspectd ended")
        time.sleep(0.05)


def cost_to_the_line(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure throughput and latency of the line, in turns without and with ten open pages."""
    turns: list[dict[str, dict[str, float]]] = []
    with inspected(folder, FPS) as (config, inspection):
        for _ in range(options.turns):
            pair = {"without": watch(inspection, options.seconds)}
            with served(folder, config) as (address, process), pages(address, PAGES):
                before_ms = cpu_ms(process.pid)
                pair["with"] = watch(inspection, options.seconds) | {
                    "dashboard_cores": (cpu_ms(process.pid) - before_ms) / 1000 / options.seconds,
                    "dashboard_mb": memory_mb(process.pid),
                }
            turns.append(pair)
            print(f"line: {pair}", flush=True)
            time.sleep(1)
    found: dict[str, Any] = {
        name: {key: round(statistics.median(pair[name][key] for pair in turns), 3) for key in turns[0][name]}
        for name in ("without", "with")
    }
    found["throughput_lost"] = round(1 - found["with"]["per_second"] / found["without"]["per_second"], 4)
    for key in ("p50_ms", "p99_ms"):
        added = [pair["with"][key] - pair["without"][key] for pair in turns]
        found[f"added_to_{key}"] = {
            "median": round(statistics.median(added), 3),
            "turns": np.round(added, 3).tolist(),
        }
    return found


def pixel(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure how long a verdict takes from its capture to the screen of a browser."""
    with (
        inspected(folder, FPS) as (config, _),
        served(folder, config) as (address, _),
        pages(address, PAGES - 1),
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/line3/line")
        page.wait_for_selector(".latest[data-at]")
        waits = page.evaluate(SEEN, int(40 * options.seconds))
    p50, p95, p99 = np.percentile(waits, (50, 95, 99)).round(1).tolist()
    return {"verdicts": len(waits), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def heap(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Have a page open while an hour's verdicts come; the heap is measured without its rubbish."""
    with (
        inspected(folder, FASTER_FPS) as (config, inspection),
        served(folder, config) as (address, _),
        chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(f"{address}/line3/line")
        page.wait_for_selector(".latest[data-at]")
        debugger = page.context.new_cdp_session(page)

        def heap_mb() -> float:
            debugger.send("HeapProfiler.collectGarbage")
            return round(float(debugger.send("Runtime.getHeapUsage")["usedSize"]) / 1e6, 2)

        first = len(inspection.verdicts)
        wait_for(inspection, first + WARM)
        before_mb, began = heap_mb(), time.monotonic()
        wait_for(inspection, first + WARM + HOUR)
        after_mb = heap_mb()
    return {
        "verdicts": HOUR,
        "seconds": round(time.monotonic() - began, 1),
        "heap_before_mb": before_mb,
        "heap_after_mb": after_mb,
        "grown_mb": round(after_mb - before_mb, 2),
    }


@contextmanager
def pages(address: str, number: int) -> Iterator[None]:
    """Have some pages open in a process of their own."""
    command = [*IDLE, sys.executable, __file__, "--pages", address, str(number)]
    browsers = subprocess.Popen(command)
    time.sleep(WARM_UP_S)
    try:
        yield
        assert browsers.poll() is None, "the pages ended"
    finally:
        browsers.terminate()
        browsers.wait()


@contextmanager
def served(folder: Path, line: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a dashboard of a line, as its service does."""
    config = folder / "dashboard.yaml"
    address = f"http://127.0.0.1:{free_port()}"
    config.write_text(yaml.safe_dump({"listen": address, "lines": [str(line)], "state": "state"}))
    process = subprocess.Popen(
        [*IDLE, BIN / "inspectd-dashboard", "--config", config],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(1)
    try:
        yield address, process
    finally:
        process.terminate()
        process.wait()


async def open_pages(address: str, number: int) -> None:
    """Have some pages open until this process is ended."""
    await asyncio.gather(*(one_page(address) for _ in range(number)))


async def one_page(address: str) -> None:
    """Take what is live, and look at the rejects as they come."""
    import httpx
    import websockets

    async with (
        httpx.AsyncClient(base_url=address) as client,
        websockets.connect(
            f"{address.replace('http', 'ws')}/api/lines/line3/live", origin=websockets.Origin(address)
        ) as live,
    ):
        await live.send('{"previews": true}')
        wanted: asyncio.Queue[str] = asyncio.Queue(20)

        async def load_pictures() -> None:
            while True:
                await client.get(await wanted.get())

        async def listen() -> None:
            async for message in live:
                content = json.loads(message)
                urls = []
                if content["type"] == "preview" and content["preview"]["url"]:
                    urls = [content["preview"]["url"]]
                elif content["type"] == "verdicts":
                    rejects = [reject["id"] for reject in content["rejects"]]
                    urls = [f"/api/lines/line3/verdicts/{name}/thumbnail.jpg" for name in rejects]
                for url in urls[: wanted.maxsize - wanted.qsize()]:  # what scrolled by is not loaded
                    wanted.put_nowait(url)

        await asyncio.gather(load_pictures(), listen())


def answers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure how long the answers take that must be quick, with a full roll-up."""
    import httpx

    from dashboard.records import shown
    from dashboard.rollup import Rollup
    from verdicts.verdict import Latency, Peak, Verdict

    (folder / "state").mkdir()
    rollup = Rollup(folder / "state/line3.rollup", "line3")
    rng = np.random.default_rng(0)
    began = datetime.now(UTC) - timedelta(hours=20)
    step = timedelta(hours=20) / options.verdicts
    scores = rng.gamma(4, 0.05, options.verdicts)
    cut = float(np.quantile(scores, 0.9))
    for first in range(0, options.verdicts, 5000):
        with rollup.transaction():
            rollup.add(
                shown(
                    Verdict(
                        line="line3",
                        camera=f"camera{number % CAMERAS}",
                        frame=number,
                        part=None,
                        boot=BOOT,
                        seq=number + 1,
                        decision="reject" if scores[number] > cut else "pass",
                        reason=None,
                        score=float(np.float32(scores[number])),
                        threshold=cut,
                        peak=Peak(number % 640, number % 480),
                        captured_at=f"{began + number * step:%Y-%m-%dT%H:%M:%S.%fZ}",
                        latency_ms=Latency(0.5, 8.0, 9.0),
                        model="flange",
                        archive=None,
                    ),
                    None,
                    None,
                )
                for number in range(first, min(first + 5000, options.verdicts))
            )
    rollup.close()
    line = folder / "line.yaml"
    line.write_text(
        yaml.safe_dump({"line": "line3", "engine": "x", "calibration": "y", "publish": f"ipc://{folder}/v"})
    )
    with served(folder, line) as (address, process), httpx.Client(base_url=address, timeout=60) as client:

        def times(path: str, queries: list[dict[str, Any]]) -> dict[str, float]:
            took, before_ms = [], cpu_ms(process.pid)
            for query in queries:
                began_s = time.perf_counter()
                client.get(f"/api/lines/line3/{path}", params=query).raise_for_status()
                took.append(1000 * (time.perf_counter() - began_s))
            return {
                "median_ms": round(statistics.median(took), 1),
                "longest_ms": round(max(took), 1),
                "processor_ms": round((cpu_ms(process.pid) - before_ms) / len(queries), 1),
            }

        places = np.linspace(0.01, 0.99, 50)
        drags = [{"threshold": float(value)} for value in np.quantile(scores, places)]
        total = client.get("/api/lines/line3/verdicts").json()["total"]
        result = {
            "verdicts": options.verdicts,
            "rejects": total,
            "gallery_first_page": times("verdicts", [{}] * 10),
            "gallery_in_the_middle": times("verdicts", [{"offset": total // 2}] * 10),
            "gallery_filtered_by_place": times("verdicts", [{"peak": "100,100,200,200"}] * 10),
            "threshold_page": times("threshold", [{}]),
            "threshold_preview": times("threshold/preview", drags),
            "trends_of_a_day": times("trends", [{"hours": 24}] * 3),
        }
        result["gallery_first_screen_ms"] = first_screens(address)
        result["dashboard_mb"] = memory_mb(process.pid)
        return result


def first_screens(address: str) -> list[float]:
    """Measure from the click until a browser shows the first rejects, milliseconds."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        took = []
        for _ in range(5):
            page.goto(f"{address}/line3/health")
            page.wait_for_selector("a[href='/line3/rejects']")
            took.append(round(page.evaluate(FIRST_SCREEN), 1))
        return took


PARTS = {"line": cost_to_the_line, "pixel": pixel, "answers": answers, "heap": heap}

if __name__ == "__main__":
    main()
