"""Several lines with one inference server, against engines in the lines' own processes, on the same cores.

    INSPECTD_TRITON=…/bin/python python benchmarks/shared_server.py bottle.onnx bottle.calibration.yaml

The server is Triton, or MLServer where INSPECTD_MLSERVER is given instead; both compute with ONNX Runtime
(tests/served_graph.py). Each line is a process that has one frame after the other judged; the ways take
turns. With --rate each has a frame at fixed times, as cameras do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"


HERE, GRPC, MEMORY = "in the lines", "one server, gRPC", "one server, shared memory"


def be_a_line(engine: Path, calibration: Path, seconds: float, rate: float, way: str) -> None:
    """Have frames judged for a while; print how long each took, in milliseconds from when it was due."""
    from calibration.calibration_file import read_calibration
    from engine_runtime import kserve
    from engine_runtime.open import open_engine

    if way == GRPC:
        kserve._NEAR.clear()  # as if the server were on another machine
    opened = open_engine(engine, threads=1)
    quantiles = read_calibration(calibration).quantiles_array()
    frame = np.random.default_rng(0).integers(0, 256, (*opened.manifest.input_size, 3), dtype=np.uint8)
    print("ready", flush=True)
    sys.stdin.readline()
    took: list[float] = []
    due_s = began_s = time.perf_counter()
    while due_s < began_s + seconds:
        time.sleep(max(0.0, due_s - time.perf_counter()))
        opened.infer([frame], quantiles)
        now_s = time.perf_counter()
        took.append(1000 * (now_s - due_s))
        due_s = due_s + 1 / rate if rate else now_s
    print(json.dumps(took), flush=True)


def lap(engine: Path, options: argparse.Namespace, way: str) -> list[float]:
    """Run some lines at the same time; give what each frame took."""
    command = [sys.executable, __file__, str(engine), str(options.calibration), "--line", way]
    command += ["--seconds", str(options.seconds), "--rate", str(options.rate)]
    lines = options.lines
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(lines)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [took for process in processes for took in json.loads(process.communicate()[0])]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Build both engines, and let lines use them in turns."""
    from in_process import run
    from inference_server import TRITON, MlServer, Triton

    from engine_build.cli import main as build_engine

    model: Path = options.model
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build = ("--triton-repository", folder / "models", "--calibration", options.calibration)
        assert run(build_engine, model, *build).returncode == 0
        kind = MlServer if TRITON is None else Triton
        server = kind(folder / "server", folder / "models" / model.stem)
        try:
            there = folder / "there.engine"
            ask = ("--server", server.address, "--server-timeout", 5000, "--max-batch", 1, "-o", there)
            here = folder / "here.engine"
            local = ("--runtime", "onnxruntime", "--fast", "--max-batch", 1, "-o", here)
            for arguments in ((*build, *ask), local):
                done = run(build_engine, model, *arguments)
                assert done.returncode == 0, done.stderr
            ways = {HERE: here, GRPC: there} | ({} if TRITON is None else {MEMORY: there})
            laps: dict[str, list[list[float]]] = {way: [] for way in ways}
            for _ in range(options.laps):
                for way, engine in ways.items():
                    laps[way].append(lap(engine, options, way))
                    print(way, _figures(laps[way], options), file=sys.stderr, flush=True)
        finally:
            server.close()
    return {way: _figures(found, options) for way, found in laps.items()}


def _figures(laps: list[list[float]], options: argparse.Namespace) -> dict[str, float]:
    every = np.concatenate(laps)
    return {
        "frames per second": round(len(every) / (len(laps) * options.seconds), 1),
        "median ms": round(float(np.median(every)), 2),
        "p99 ms": round(float(np.quantile(every, 0.99)), 2),
    }


def main() -> None:
    """Measure, and print what was found as JSON."""
    sys.path[:1] = [str(TESTS.parent), str(TESTS)]
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    given.add_argument("model", type=Path)
    given.add_argument("calibration", type=Path)
    given.add_argument("--lines", type=int, default=4)
    given.add_argument("--laps", type=int, default=5)
    given.add_argument("--seconds", type=float, default=10)
    given.add_argument(
        "--rate", type=float, default=0, help="frames per second of a line; 0: as fast as it goes"
    )
    given.add_argument("--line", metavar="WAY", help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.line:
        be_a_line(options.model, options.calibration, options.seconds, options.rate, options.line)
    else:
        print(json.dumps(measure(options), indent=1))


if __name__ == "__main__":
    main()
