"""What a dashboard with ten open pages costs its line, and how fast its pages are answered.

    python benchmarks/operators_page.py ENGINE CALIBRATION

The line has four cameras with 25 parts per second each. Turns with ten open pages, which take everything live
and ask for pictures as they come, alternate with turns without a dashboard; the pages run in a process of
their own with nice 15, as browsers are elsewhere. The second part fills a roll-up with 1,000,000 verdicts, of
which 100,000 are rejects, and asks for the first page of the gallery and for previews of thresholds.
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
from inspection import BIN, Inspection

sys.path.append(str(Path(__file__).parents[1]))
from fuzzing.free_port import free_port

PAGES = 10
CAMERAS = 4
FPS = 25
WARM_UP_S = 3.0
BOOT = "b0" * 8


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("engine", type=Path, nargs="?")
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("--pages", metavar="ADDRESS", help="only have ten pages open there for --seconds")
    parser.add_argument("--turns", type=int, default=3, help="with and without each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of each turn (default: %(default)s)")
    parser.add_argument("--verdicts", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args()
    if options.pages is not None:
        print(json.dumps(asyncio.run(open_pages(options.pages, options.seconds))))
        return
    result: dict[str, Any] = {}
    if options.turns:
        result["line"] = cost_to_the_line(options)
    if options.verdicts:
        result["answers"] = answers(options)
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def cost_to_the_line(options: argparse.Namespace) -> dict[str, Any]:
    """Measure throughput and latency of the line, in turns without and with ten open pages."""
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for turn in range(2 * options.turns):
        name = "with" if turn % 2 else "without"
        found[name].append(one_turn(options, pages=name == "with"))
        print(f"turn {turn + 1}, {name}: {found[name][-1]}", flush=True)
    middle = {
        name: {key: round(statistics.median(turn[key] for turn in turns), 3) for key in turns[0]}
        for name, turns in found.items()
    }
    without, with_pages = middle["without"], middle["with"]
    return {
        **middle,
        "throughput_lost": round(1 - with_pages["per_second"] / without["per_second"], 4),
        "p99_added_ms": round(with_pages["p99_ms"] - without["p99_ms"], 3),
    }


def one_turn(options: argparse.Namespace, *, pages: bool) -> dict[str, float]:
    """Run the line for a while, with or without ten open pages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = "simulated://?seed={}&width=256&height=256&cached=8&defects=0.1"
        config = folder / "line.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "line": "line3",
                    "engine": str(options.engine.resolve()),
                    "calibration": str(options.calibration.resolve()),
                    "publish": f"ipc://{folder}/verdicts",
                    "control": f"ipc://{folder}/control",
                    "journal": {"file": "line.journal"},
                    "archive": {"folder": "rejects"},
                    "threads": 1,
                    "cameras": {
                        f"camera{number}": {"source": source.format(number), "fps": FPS}
                        for number in range(CAMERAS)
                    },
                }
            )
        )
        inspection = Inspection(config)
        while len(inspection.verdicts) < 100:
            if inspection.daemon.poll() is not None:
                sys.exit("inspectd ended")
            time.sleep(0.05)
        figures: dict[str, float] = {}
        if pages:
            with served(folder, config) as (address, process):
                command = ["--pages", address, "--seconds", str(options.seconds)]
                browsers = subprocess.Popen(
                    ["nice", "-n", "15", sys.executable, __file__, *command], stdout=subprocess.PIPE
                )
                time.sleep(WARM_UP_S)
                before_ms = cpu_ms(process.pid)
                watch(inspection, options.seconds, figures)
                figures["dashboard_cores"] = (cpu_ms(process.pid) - before_ms) / 1000 / options.seconds
                figures |= json.loads(browsers.communicate()[0])
                figures["dashboard_mb"] = memory_mb(process.pid)
        else:
            watch(inspection, options.seconds, figures)
        inspection.stop()
        return figures


def watch(inspection: Inspection, seconds: float, figures: dict[str, float]) -> None:
    """Measure the verdicts that come in some seconds."""
    first, began = len(inspection.verdicts), time.monotonic()
    before_ms = cpu_ms(inspection.daemon.pid)
    time.sleep(seconds)
    took_ms = cpu_ms(inspection.daemon.pid) - before_ms
    verdicts = inspection.verdicts[first:]
    took = np.array([verdict.latency_ms.total for verdict in verdicts])
    p50, p99 = np.percentile(took, (50, 99)).round(3).tolist()
    figures |= {
        "per_second": round(len(verdicts) / (time.monotonic() - began), 2),
        "p50_ms": p50,
        "p99_ms": p99,
        "daemon_ms_per_verdict": round(took_ms / len(verdicts), 3),
        "faults": float(sum(verdict.decision == "fault" for verdict in verdicts)),
    }


@contextmanager
def served(folder: Path, line: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a dashboard of a line, as its service does."""
    config = folder / "dashboard.yaml"
    address = f"http://127.0.0.1:{free_port()}"
    config.write_text(yaml.safe_dump({"listen": address, "lines": [str(line)], "state": "state"}))
    process = subprocess.Popen(
        ["nice", "-n", "10", BIN / "inspectd-dashboard", "--config", config],
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


async def open_pages(address: str, seconds: float) -> dict[str, float]:
    """Have ten pages open, and tell how long a verdict takes from its capture to a page."""
    delays: list[float] = []
    pages = [asyncio.create_task(one_page(address, delays)) for _ in range(PAGES)]
    await asyncio.sleep(WARM_UP_S)
    delays.clear()
    await asyncio.sleep(seconds)
    for page in pages:
        page.cancel()
    for ended in await asyncio.gather(*pages, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    p50, p95 = np.percentile(delays, (50, 95)).round(1).tolist()
    return {"capture_to_page_p50_ms": p50, "capture_to_page_p95_ms": p95, "points": float(len(delays))}


async def one_page(address: str, delays: list[float]) -> None:
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
                    now_ms = time.time() * 1000
                    delays.extend(now_ms - at for _, at, _, _ in content["points"])
                    rejects = [reject["id"] for reject in content["rejects"]]
                    urls = [f"/api/lines/line3/verdicts/{name}/thumbnail.jpg" for name in rejects]
                for url in urls[: wanted.maxsize - wanted.qsize()]:  # what scrolled by is not loaded
                    wanted.put_nowait(url)

        await asyncio.gather(load_pictures(), listen())


def answers(options: argparse.Namespace) -> dict[str, Any]:
    """Measure how long the answers take that must be quick, with a full roll-up."""
    import httpx

    from dashboard.records import shown
    from dashboard.rollup import Rollup
    from verdicts.message import Latency, Peak, Verdict

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
            yaml.safe_dump(
                {"line": "line3", "engine": "x", "calibration": "y", "publish": f"ipc://{folder}/v"}
            )
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
            result["dashboard_mb"] = memory_mb(process.pid)
            return result


def cpu_ms(pid: int) -> float:
    """Give the processor time that a process took so far, which other load does not change."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Give the memory of a process, as the kernel counts it as resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


if __name__ == "__main__":
    main()
