"""Runs one target in a process of its own: ``python -m fuzzing.child TARGET RUNS SEED FOLDER``.

Inputs come from Atheris: libFuzzer, guided by the coverage of our own modules. A finding does not end the
run; it is kept in a file, once for each place in the code. FOLDER gets the flight record, ``result.json``
and the findings.
"""

import hashlib
import importlib
import json
import logging
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Final

from fuzzing.flight_record import FlightRecord
from fuzzing.target import Target

MOST_CPU_S: Final = 1.0
MOST_GROWTH_MB: Final = 64
_MOST_DATA_BYTES: Final = 6 << 30  # that a single input may not take the whole machine's memory
_PRODUCT: Final = ["calibration", "daemon", "engine_runtime", "foundation", "pictures", "verdicts"]
_RESULT_S: Final = 1.0


class Runner:
    """Runs inputs and notes what came of them."""

    def __init__(self, target: Target, runs: int, folder: Path) -> None:
        self._target = target
        self._runs = runs
        self._folder = folder
        self._record = FlightRecord(folder / "flight")
        self._kinds: Counter[str] = Counter()
        self._findings: Counter[str] = Counter()
        self._slowest_s = 0.0
        self._slowest = b""
        self._growth_mb = 0.0
        self._done = 0
        self._started_s = self._written_s = time.monotonic()
        self._logged: list[logging.LogRecord] = []
        logging.getLogger().handlers = [_Listener(self._logged)]

    def run(self, data: bytes) -> None:
        """Run one input."""
        self._record.begin(data)
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began_s = time.process_time()
        try:
            self._target.run(data)
            kind = "accepted"
        except self._target.documented as error:
            kind = type(error).__name__
        except Exception as error:
            kind = "finding"
            self._found(data, f"{type(error).__name__} at {_place(error)}", traceback.format_exc())
        took_s = time.process_time() - began_s
        grew_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb) / 1024
        self._kinds[kind] += 1
        if self._logged:
            self._found(data, "internal error logged", "\n".join(map(_as_text, self._logged)))
            self._logged.clear()
        if took_s > self._slowest_s:
            self._slowest_s, self._slowest = took_s, data
        if took_s > MOST_CPU_S:
            self._found(data, "slow", f"{took_s:.1f} s of processor time, at most {MOST_CPU_S:g} expected")
        self._growth_mb = max(self._growth_mb, grew_mb if self._done > 100 else 0)  # first, modules load
        if grew_mb > MOST_GROWTH_MB and self._done > 100:
            self._found(data, "memory", f"grew by {grew_mb:.0f} MB, at most {MOST_GROWTH_MB} expected")
        self._done += 1
        now_s = time.monotonic()
        if self.is_finished or now_s - self._written_s > _RESULT_S:
            self._written_s = now_s
            self._write_result()

    @property
    def is_finished(self) -> bool:
        """Whether the inputs are used up."""
        return self._done >= self._runs

    def _found(self, data: bytes, what: str, text: str) -> None:
        self._findings[what] += 1
        if self._findings[what] > 1:
            return
        self._written_s = 0.0  # at once: what is found next may be the process's end
        name = f"finding-{hashlib.sha256(data).hexdigest()[:12]}"
        (self._folder / name).write_bytes(data)
        (self._folder / f"{name}.txt").write_text(f"{what}\n\n{text}", errors="replace")

    def _write_result(self) -> None:
        result: dict[str, Any] = {
            "inputs": self._done,
            "seconds": round(time.monotonic() - self._started_s, 1),
            "slowest_ms": round(self._slowest_s * 1000, 1),
            "largest_growth_mb": round(self._growth_mb, 1),
            "kinds": dict(self._kinds),
            "findings": dict(self._findings),
        }
        temporary = self._folder / "result.part"
        temporary.write_text(json.dumps(result))
        temporary.replace(self._folder / "result.json")
        (self._folder / "slowest").write_bytes(self._slowest)


class _Listener(logging.Handler):
    """Keeps what the product logs as its own mistakes: an exception that nobody expected."""

    def __init__(self, found: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._found.append(record)


def _as_text(record: logging.LogRecord) -> str:
    return logging.Formatter().format(record)


def _place(error: BaseException) -> str:
    """Name the last line of our own code that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if {*_PRODUCT, "fuzzing"} & set(Path(f.filename).parts)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def main() -> None:
    """Run a target until its inputs are used up."""
    name, runs, seed, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_DATA_BYTES, _MOST_DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=_PRODUCT):
        module = importlib.import_module(f"fuzzing.{name}")
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    target: Target = module.Target(scratch)
    runner = Runner(target, runs, folder)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    seeds = target.seeds()
    for number, data in enumerate(seeds):
        (corpus / f"{number}").write_bytes(data)
    lines = "".join(f'"{_escaped(word)}"\n' for word in target.words)
    (folder / "words").write_text(lines or "# none\n")

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:  # what the corpus gathers is broken for the most part
            data = chance.choice(seeds)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(data, chance)[:max_size]

    options = {
        "seed": seed,
        "max_len": target.longest,
        "len_control": 0,
        "dict": folder / "words",
        "artifact_prefix": f"{folder}/libfuzzer-",
        "rss_limit_mb": 0,  # memory is watched here, and time from outside
        "timeout": 100_000,
    }

    def run(data: bytes) -> None:
        runner.run(data)
        if runner.is_finished:
            os._exit(0)  # libFuzzer would go on

    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], run, custom_mutator=mutated)
    atheris.Fuzz()


def _escaped(word: str) -> str:
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word.encode()
    )
    return "".join(plain)


if __name__ == "__main__":
    main()
