"""Many lines through hub and lake, while hub, forwarder and lake are killed at random.

    python benchmarks/fleet.py --lines 50 --seconds 100 --kill-every 12 --out docs/benchmarks/fleet.md

A line here is what is behind a daemon's verdicts: its journal and its control socket, with the code of
``inspectd``; cameras and engines are left out, and 25 lines share a process that is not killed. Hub (a NATS
server that syncs each write), ``inspectd-fleet forward`` and ``inspectd-fleet lake`` are the real ones.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
LINES_IN_A_PROCESS = 25


def host(folder: Path, names: list[str], rate: float) -> None:
    """Be some lines: say where they answer, wait for their subscriber, judge until stdin ends."""
    from concurrent.futures import Future
    from dataclasses import replace

    from line_process import a_health, a_verdict
    from line_rig import free_address

    from daemon.control.server import Control
    from daemon.host.access import Access
    from daemon.journal.journal import Journal
    from verdicts import encode

    def refuse(*_: object) -> "Future[str]":
        raise RuntimeError("these lines take no commands")

    random.seed(names[0])
    boots = {name: f"{random.getrandbits(64):016x}" for name in names}
    journals, controls, addresses = {}, {}, {}
    for name in names:
        file = folder / f"{name}.journal"
        addresses[name] = free_address()
        journals[name] = Journal(file, line=name, keep_days=90, max_mb=10_000)
        controls[name] = Control(addresses[name], file, commands=refuse, access=Access())
        controls[name].start()
    print(json.dumps(addresses), flush=True)
    ending = False
    begun_s, told_s, seq = 0.0, 0.0, 0
    os.set_blocking(0, False)
    while not ending:
        if time.monotonic() >= told_s + 1:
            told_s = time.monotonic()
            for name, control in controls.items():
                snapshot = dict(control.subscribers)
                control.health(*encode(a_health(seq, boots[name], line=name, subscribers=snapshot)))
            if not begun_s and all("fleet" in control.subscribers for control in controls.values()):
                begun_s = time.monotonic()
                print("begun", flush=True)
        ending = _ended()
        if begun_s and not ending and time.monotonic() >= begun_s + seq / rate:
            seq += 1
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            for name in names:
                verdict = replace(a_verdict(seq, boots[name], line=name), captured_at=now)
                journals[name].write([(verdict, encode(verdict)[1])])
                controls[name].journaled()
        else:
            time.sleep(0.002)
    print(seq, flush=True)
    while not _ended(word=b"end"):
        time.sleep(0.05)
        if time.monotonic() >= told_s + 1:
            told_s = time.monotonic()
            for name, control in controls.items():
                control.health(*encode(a_health(seq, boots[name], line=name)))
    os._exit(0)


def _ended(word: bytes = b"stop") -> bool:
    try:
        return word in (os.read(0, 100) or word)
    except BlockingIOError:
        return False


class Hosts:
    """The processes of all lines."""

    def __init__(self, folder: Path, lines: int, rate: float) -> None:
        self.names = [f"line{number:03d}" for number in range(1, lines + 1)]
        self.controls: dict[str, str] = {}
        self.processes = []
        for first in range(0, lines, LINES_IN_A_PROCESS):
            names = self.names[first : first + LINES_IN_A_PROCESS]
            command = [sys.executable, __file__, "--host", json.dumps([str(folder), names, rate])]
            environment = os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            assert process.stdout is not None
            self.controls |= json.loads(process.stdout.readline())
            self.processes.append(process)

    def wait_begun(self) -> None:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"

    def tell(self, word: str) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(word)
            process.stdin.flush()

    def stop(self) -> int:
        """Stop judging; give how many verdicts there are."""
        self.tell("stop")
        count = 0
        for number, process in enumerate(self.processes):
            assert process.stdout is not None
            lines = len(self.names[number * LINES_IN_A_PROCESS : (number + 1) * LINES_IN_A_PROCESS])
            count += int(process.stdout.readline()) * lines
        return count

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def measure(lines: int, rate: float, seconds: float, every_s: float, seed: int) -> dict[str, Any]:
    """Run everything in a folder of its own; give what was measured."""
    from fleet_rig import NatsServer, Running, write_fleet

    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        hosts = Hosts(folder, lines, rate)
        stack.callback(hosts.close)
        hub = NatsServer(folder / "hub")
        stack.callback(hub.close)
        sections = [{"line": name, "control": control} for name, control in hosts.controls.items()]
        lake_section = {"folder": "lake", "every_s": 5}
        config = write_fleet(folder, hub.section(), sections, lake=lake_section)
        forward, lake = Running("forward", config), Running("lake", config)
        stack.callback(forward.kill)
        stack.callback(lake.kill)
        hosts.wait_begun()
        print("all lines are subscribed to; judging", file=sys.stderr)
        kills = {"hub": 0, "forward": 0, "lake": 0}
        parts: dict[str, Any] = {"hub": hub, "forward": forward, "lake": lake}
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, chance.uniform(0.5, 1.5) * every_s))
            if time.monotonic() < end_s - 2:
                name = min(sorted(parts, key=lambda _: chance.random()), key=lambda part: kills[part])
                print(f"{left_s:.0f} s left: {name} is killed", file=sys.stderr)
                parts[name].kill()
                time.sleep(chance.uniform(0, 2))
                parts[name].start()
                kills[name] += 1
        count = hosts.stop()
        stopped_s = time.monotonic()
        rows = _wait_for(folder / "lake", count)
        caught_up_s = time.monotonic() - stopped_s
        lake.stop()
        forward.stop()
        return _results(folder, rows, count, kills) | {
            "lines": lines,
            "verdicts per second": lines * rate,
            "seconds": seconds,
            "caught up s": round(caught_up_s, 1),
        }


def _wait_for(lake: Path, count: int) -> int:
    give_up_s = time.monotonic() + 120
    rows = -1
    while time.monotonic() < give_up_s and rows < count:
        time.sleep(0.5)
        rows = _one(lake, "SELECT count(*) FROM verdicts")[0]
    return rows


def _one(lake: Path, sql: str) -> tuple[Any, ...]:
    from fleet.delta import open_to_read, view

    found = view(open_to_read(lake)).execute(sql).fetchone()
    assert found is not None
    return tuple(found)


def _results(folder: Path, rows: int, count: int, kills: dict[str, int]) -> dict[str, Any]:
    from fleet.delta import Lake

    lake = folder / "lake"
    once = _one(lake, "SELECT count(*) FROM (SELECT DISTINCT line, boot, seq FROM verdicts)")[0]
    lag = "epoch(stored_at) - epoch(captured_at)"
    median, p99, most = _one(
        lake, f"SELECT quantile_cont({lag}, 0.5), quantile_cont({lag}, 0.99), max({lag}) FROM verdicts"
    )
    Lake(lake).compact()
    files = [Path(name.removeprefix("file://")) for name in _files(lake)]
    return {
        "verdicts": count,
        "missing": count - once,
        "double": rows - once,
        "kills": kills,
        "lag to hub s": {"median": round(median, 3), "p99": round(p99, 2), "longest": round(most, 2)},
        "bytes per verdict": {
            "journal": round(_size(folder.glob("*.journal")) / count),
            "hub": round(_size((folder / "hub/store").rglob("*.blk")) / count),
            "lake": round(_size(files) / count, 1),
        },
    }


def _files(lake: Path) -> list[str]:
    from fleet.delta import open_to_read

    return list(open_to_read(lake).file_uris())


def _size(files: Any) -> int:
    return sum(file.stat().st_size for file in files)


def page(found: dict[str, Any], command: str) -> str:
    """Write the results as a page."""
    rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in found.items())
    return (
        "# Many lines, one hub, one lake\n\n"
        f"```\n{command}\n```\n\n"
        "Journals and control sockets are those of `inspectd`; cameras and engines are left out, and the "
        "lines' own processes are not killed. The hub syncs each write. Everything shares one machine "
        f"with {os.cpu_count()} cores, on which other programs ran. The lag is from a verdict's capture "
        "until the hub has it, kills included; the lake was compacted before its bytes were counted. Scores "
        "and latencies are all alike here: real ones need more bytes in the lake.\n\n"
        f"| | |\n|---|---|\n{rows}\n"
    )


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20, help="verdicts per second of each line")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--kill-every", type=float, default=12, metavar="S", help="on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="page to write; beside it the same as JSON")
    options = parser.parse_args()
    sys.path[:1] = [str(TESTS.parent), str(TESTS)]  # not this folder: "fleet" is the package
    if options.host is not None:
        folder, names, rate = json.loads(options.host)
        host(Path(folder), names, rate)
    found = measure(options.lines, options.rate, options.seconds, options.kill_every, options.seed)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        given = f"--lines {options.lines} --seconds {options.seconds:g} --kill-every {options.kill_every:g}"
        command = f"python benchmarks/fleet.py {given}"
        options.out.write_text(page(found, command))
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["missing"] == found["double"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
