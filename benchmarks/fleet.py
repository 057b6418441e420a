"""Many lines through hub and lake, while hub, forwarder and lake are killed at random.

    python benchmarks/fleet.py --seconds 1000 --power-cuts --out docs/benchmarks/fleet.md

A line here is what is behind a daemon's verdicts: its journal and its control socket, with the code of
``inspectd``; cameras and engines are left out, and 25 lines share a process that is not killed. Hub (a NATS
server that syncs each write), ``inspectd-fleet forward`` and ``inspectd-fleet lake`` are the real ones.
With --power-cuts the hub's disk loses its power at every other time that the hub is killed (root only).

It may be paused (SIGSTOP) and share its cores: the lines then judge later, and the lags are longer.
"""

import argparse
import json
import os
import random
import select
import signal
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
PAUSED_S = 1.0
"""Who was not run for so long goes on from there, and does not judge all of it at once."""


def host(folder: Path, names: list[str], rate: float, most: int) -> None:
    """Be some lines: say where they answer, wait for a subscriber, judge so many each, until stdin ends."""
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
    due_s, told_s, seq = 0.0, 0.0, 0
    os.set_blocking(0, False)
    while not _ended():
        now_s = time.monotonic()
        if now_s >= told_s + 1:
            told_s = now_s
            for name, control in controls.items():
                snapshot = dict(control.subscribers)
                control.health(*encode(a_health(seq, boots[name], line=name, subscribers=snapshot)))
            if not due_s and all("fleet" in control.subscribers for control in controls.values()):
                due_s = now_s
                print("begun", flush=True)
        if due_s and seq < most and now_s >= due_s:
            due_s = max(due_s + 1 / rate, now_s - PAUSED_S)
            seq += 1
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            for name in names:
                verdict = replace(a_verdict(seq, boots[name], line=name), captured_at=now)
                journals[name].write([(verdict, encode(verdict)[1])])
                controls[name].journaled()
            if seq == most:
                print("done", flush=True)
        else:
            time.sleep(0.002)
    os._exit(0)


def _ended() -> bool:
    try:
        return not os.read(0, 100)
    except BlockingIOError:
        return False


class Hosts:
    """The processes of all lines."""

    def __init__(self, folder: Path, lines: int, rate: float, most: int) -> None:
        self.names = [f"line{number:03d}" for number in range(1, lines + 1)]
        self.controls: dict[str, str] = {}
        self.processes = []
        for first in range(0, lines, LINES_IN_A_PROCESS):
            names = self.names[first : first + LINES_IN_A_PROCESS]
            command = [sys.executable, __file__, "--host", json.dumps([str(folder), names, rate, most])]
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

    def are_done(self) -> bool:
        """Tell whether all of them have judged what they should."""
        said = select.select([process.stdout for process in self.processes], [], [], 0)[0]
        return len(said) == len(self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


class Hub:
    """The NATS server, on a disk whose power can be cut."""

    def __init__(self, folder: Path, power_cuts: bool) -> None:
        from faults.test_faults_power_cut import Disk
        from fleet_rig import NatsServer

        self.disk = Disk(folder, mb=4000) if power_cuts else None
        self.server = NatsServer((self.disk.folder if self.disk else folder) / "hub")
        os.sync()  # its config is no part of what is tried
        self.cuts = 0
        self._kills = 0

    def kill(self) -> None:
        self._kills += 1
        if self.disk is None or self._kills % 2:
            self.server.kill()
            return
        self.cuts += 1
        self.server.process.send_signal(
            signal.SIGSTOP
        )  # nobody sees the disk fail: with the power, the hub is gone
        self.disk.cut()
        self.server.kill()
        self.disk.come_up_again()

    def start(self) -> None:
        self.server.start()

    def close(self) -> None:
        self.server.close()
        if self.disk is not None:
            self.disk.close()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything in a folder of its own; give what was measured."""
    import patience

    patience.PATIENCE_S = 1800  # it may be paused meanwhile
    from fleet_rig import Running, write_fleet

    lines, rate, seconds = options.lines, options.rate, options.seconds
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        count = round(seconds * rate) * lines
        hosts = Hosts(folder, lines, rate, count // lines)
        stack.callback(hosts.close)
        hub = Hub(folder, options.power_cuts)
        stack.callback(hub.close)
        sections = [{"line": name, "control": control} for name, control in hosts.controls.items()]
        lake_section = {"folder": "lake", "every_s": 5}
        config = write_fleet(folder, hub.server.section(), sections, lake=lake_section)
        forward, lake = Running("forward", config), Running("lake", config)
        stack.callback(forward.kill)
        stack.callback(lake.kill)
        hosts.wait_begun()
        began_s = time.monotonic()
        print("all lines are subscribed to; judging", file=sys.stderr)
        kills = {"hub": 0, "forward": 0, "lake": 0}
        parts: dict[str, Any] = {"hub": hub, "forward": forward, "lake": lake}
        while not hosts.are_done():
            time.sleep(chance.uniform(0.5, 1.5) * options.kill_every)
            name = min(sorted(parts, key=lambda _: chance.random()), key=lambda part: kills[part])
            written = lake.status().get("position")
            print(
                f"{time.monotonic() - began_s:.0f} s, {written} in the lake: {name} is killed",
                file=sys.stderr,
            )
            parts[name].kill()
            time.sleep(chance.uniform(0, 2))
            parts[name].start()
            kills[name] += 1
        judged_s = time.monotonic() - began_s
        rows = _wait_for(folder / "lake", count)
        caught_up_s = time.monotonic() - began_s - judged_s
        lake.stop()
        forward.stop()
        return _results(folder, hub.server.folder, rows, count) | {
            "kills": kills,
            "power cuts of the hub": hub.cuts,
            "lines": lines,
            "verdicts per second": lines * rate,
            "seconds": round(judged_s),
            "caught up s": round(caught_up_s, 1),
        }


def _wait_for(lake: Path, count: int) -> int:
    """Wait until so many rows are there, or none has come in a hundred looks; give how many."""
    rows, looks = -1, 0
    while rows < count and looks < 100:
        time.sleep(2)
        before, rows = rows, _one(lake, "SELECT count(*) FROM verdicts")[0]
        looks = looks + 1 if rows == before else 0
    return int(rows)


def _one(lake: Path, sql: str) -> tuple[Any, ...]:
    from fleet.delta import open_to_read, view

    found = view(open_to_read(lake)).execute(sql).fetchone()
    assert found is not None
    return tuple(found)


def _results(folder: Path, hub: Path, rows: int, count: int) -> dict[str, Any]:
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
        "lag to hub s": {"median": round(median, 3), "p99": round(p99, 2), "longest": round(most, 2)},
        "bytes per verdict": {
            "journal": round(_size(folder.glob("*.journal")) / count),
            "hub": round(_size((hub / "store").rglob("*.blk")) / count),
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
    parser.add_argument("--power-cuts", action="store_true", help="of the hub's disk; needs root")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="page to write; beside it the same as JSON")
    options = parser.parse_args()
    sys.path[:1] = [str(TESTS.parent), str(TESTS)]  # not this folder: "fleet" is the package
    if options.host is not None:
        folder, names, rate, most = json.loads(options.host)
        host(Path(folder), names, rate, most)
    found = measure(options)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        given = f"--lines {options.lines} --seconds {options.seconds:g} --kill-every {options.kill_every:g}"
        given += f" --seed {options.seed}" + (" --power-cuts" if options.power_cuts else "")
        command = f"python benchmarks/fleet.py {given}"
        options.out.write_text(page(found, command))
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["missing"] == found["double"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
