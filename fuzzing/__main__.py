"""Fuzzing: every part of inspectd that reads what others wrote, until a million inputs have done no harm.

    python -m fuzzing --inputs 1000000 --json docs/benchmarks/fuzz.json

Each target runs in a process of its own, so that a crash or a hang costs that one input; it is kept, and the
target goes on. Needs Atheris: ``pip install 'inspectd[fuzz]'``.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from fuzzing.flight_record import FlightRecord

# Cheap inputs get most of a million: a message takes microseconds, a config file (PyYAML is written in
# Python) ten milliseconds, an altered journal is audited, read, served and continued in thirty.
SHARES: Final = {
    "message": 330,
    "request": 180,
    "reply": 150,
    "camera_packet": 110,
    "engine_file": 60,
    "leftovers": 40,
    "live_line": 40,
    "control": 30,
    "subscriber": 25,
    "config_file": 12,
    "calibration_file": 11,
    "camera": 8,
    "journal": 3,
    "engine_payload": 1,
}
"""Of a thousand inputs; the names are modules in ``fuzzing``."""

_ROOT: Final = Path(__file__).resolve().parents[1]
_HANG_S: Final = 90.0  # the trial of an engine gives up after a minute
_START_S: Final = 60.0
_POLL_S: Final = 0.1
_MOST_DEATHS: Final = 20


@dataclass
class Result:
    """What came of a target."""

    inputs: int = 0
    seconds: float = 0.0
    edges: int | None = None
    slowest_ms: float = 0.0
    largest_growth_mb: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    hangs: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    """Undocumented exceptions, broken promises, inputs over the bounds of time and memory."""
    line: dict[str, Any] | None = None
    """Of the daemon that was flooded."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.crashes or self.hangs or self.findings)


class Fuzzing:
    """One target, over all the processes that it takes."""

    def __init__(self, name: str, inputs: int, seed: int, folder: Path, findings: Path) -> None:
        self._name = name
        self._inputs = inputs
        self._seed = seed
        self._folder = folder
        self._findings = findings
        self.result = Result()

    def run(self) -> Result:
        """Run all inputs, in as many processes as die of them."""
        began_s = time.monotonic()
        deaths = 0
        with tqdm(total=self._inputs, desc=self._name, unit="input", disable=None, leave=False) as progress:
            while self.result.inputs < self._inputs and deaths < _MOST_DEATHS:
                deaths += not self._run_process(deaths, progress)
        self.result.seconds = round(time.monotonic() - began_s, 1)
        return self.result

    def _run_process(self, number: int, progress: "tqdm[Any]") -> bool:
        """Run what is left in one process; whether it came to its end."""
        folder = self._folder / f"{self._name}-{number}"
        folder.mkdir()
        record = FlightRecord(folder / "flight")
        module = "live_line" if self._name == "live_line" else "child"
        left = str(self._inputs - self.result.inputs)
        command = [
            sys.executable,
            "-m",
            f"fuzzing.{module}",
            self._name,
            left,
            str(self._seed + number),
            folder,
        ]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT / "benchmarks")},  # the null engine is there
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            hung = self._watch(process, record, progress)
        said = log.read_text(errors="replace")
        self._take(folder, record.begun)
        edges = [int(line.split("cov: ")[1].split()[0]) for line in said.splitlines() if " cov: " in line]
        self.result.edges = max([self.result.edges or 0, *edges]) or None
        ended_well = process.returncode == 0
        if hung:
            self.result.hangs += 1
        elif not ended_well:
            self.result.crashes += 1
        if not ended_well:
            kind = "hang" if hung else "crash"
            self._keep(f"{kind}-{number}", record.present, said[-4000:])
        record.close()
        shutil.rmtree(folder)
        return ended_well

    def _watch(self, process: "subprocess.Popen[bytes]", record: FlightRecord, progress: "tqdm[Any]") -> bool:
        """Wait for the process's end, and bring it about when an input takes for ever."""
        begun, since_s = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_S)
            if record.begun != begun:
                progress.update(record.begun - begun)
                begun, since_s = record.begun, time.monotonic()
            elif time.monotonic() - since_s > (_HANG_S if begun else _START_S):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
        return False

    def _take(self, folder: Path, begun: int) -> None:
        """Add up what the process noted, and keep what it found."""
        self.result.inputs += begun
        file = folder / "result.json"
        if file.exists():
            noted = json.loads(file.read_text())
            self.result.slowest_ms = max(self.result.slowest_ms, noted["slowest_ms"])
            self.result.largest_growth_mb = max(self.result.largest_growth_mb, noted["largest_growth_mb"])
            self.result.kinds.update(noted["kinds"])
            self.result.findings.update(noted["findings"])
        line = folder / "line.json"
        if line.exists():
            self.result.line = json.loads(line.read_text())
        for found in folder.glob("finding-*"):
            self._findings.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, self._findings / f"{self._name}-{found.name}")

    def _keep(self, what: str, data: bytes, said: str) -> None:
        self._findings.mkdir(parents=True, exist_ok=True)
        (self._findings / f"{self._name}-{what}").write_bytes(data)
        (self._findings / f"{self._name}-{what}.txt").write_text(said)


def table(results: dict[str, Result]) -> str:
    """Write the results as Markdown."""
    lines = [
        "| target | inputs | seconds | edges | slowest input | accepted | refused as documented "
        "| crashes | hangs | other findings |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        kinds = result.kinds - Counter({"finding": result.kinds["finding"]})
        accepted = kinds.pop("accepted", 0)
        refused = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or "–"
        found = ", ".join(f"{count} × {what}" for what, count in result.findings.most_common()) or "0"
        lines.append(
            f"| {name} | {result.inputs:,} | {result.seconds:.0f} | {result.edges or '–'} "
            f"| {result.slowest_ms:.0f} ms | {accepted:,} | {refused} "
            f"| {result.crashes} | {result.hangs} | {found} |"
        )
    total = [sum(getattr(result, key) for result in results.values()) for key in ("inputs", "seconds")]
    deaths = [sum(getattr(result, key) for result in results.values()) for key in ("crashes", "hangs")]
    findings = sum(sum(result.findings.values()) for result in results.values())
    lines.append(f"| all | {total[0]:,} | {total[1]:.0f} | | | | | {deaths[0]} | {deaths[1]} | {findings} |")
    return "\n".join(lines)


def main() -> int:
    """Fuzz; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, help="over all targets (default: %(default)s)"
    )
    parser.add_argument(
        "--targets", nargs="+", choices=SHARES, default=list(SHARES), metavar="NAME", help=", ".join(SHARES)
    )
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz-findings"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: Atheris is not installed: pip install 'inspectd[fuzz]'", file=sys.stderr)
        return 2
    memory = Path("/dev/shm")  # inputs that are files are written a hundred thousand times
    total = sum(SHARES[name] for name in options.targets)
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="fuzz-") as folder:
        for name in options.targets:
            inputs = max(1, -(-options.inputs * SHARES[name] // total))
            fuzzing = Fuzzing(name, inputs, options.seed, Path(folder), options.findings.absolute())
            results[name] = fuzzing.run()
    print(table(results))
    if options.json is not None:
        content = {name: vars(result) for name, result in results.items()}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    clean = all(result.is_clean for result in results.values())
    if not clean:
        print(f"fuzz: inputs with findings are in {options.findings}", file=sys.stderr)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
