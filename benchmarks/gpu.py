"""What an NVIDIA GPU does with our engines, beside torch's and anomalib's ways of running the same weights.

    python benchmarks/gpu.py --json docs/benchmarks/gpu.json --markdown docs/benchmarks/gpu.md
    python benchmarks/gpu.py --parts b --quick

parts:
  a  which runtimes run here, and what build-engine proves of their engines
  b  S and M, 256×256, batches of 1 to 32: images per second beside torch, and the share of the GPU's peak
  d  the daemon with 1, 4 and 16 simulated cameras
  e  ten minutes of four cameras: does memory stay flat?

With TensorRT or TensorRT-RTX where one runs, else with ONNX Runtime on CUDA; where neither does, torch is
measured alone and the page says so. Nothing else should run meanwhile.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError

if TYPE_CHECKING:
    from comparison.report import Part
    from comparison.session import Session

    from models.efficientad.networks import ModelSize  # it imports torch

PROG = "gpu.py"
SIDE, MAX_BATCH = 256, 32
SIZES: "tuple[ModelSize, ...]" = ("s", "m")
PACKAGES = (
    "inspectd", "tensorrt", "tensorrt_rtx_cu13_bindings", "onnxruntime-gpu", "pycuda", "torch", "numpy",
)  # fmt: skip
WAYS = {
    "TensorRT": ("--runtime", "tensorrt"),
    "ONNX Runtime": ("--runtime", "onnxruntime", "--device", "cuda"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    options = parser().parse_args(argv)
    from engine_runtime.cuda_driver import needed_gpu

    try:
        present = needed_gpu()
    except InputError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    from comparison.equality import NotTheSame
    from comparison.line import LineFailed
    from comparison.report import Report
    from comparison.session import Session
    from peer.client import PeerFailed

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = shlex.join(["python", "benchmarks/gpu.py", *(sys.argv[1:] if argv is None else argv)])
    cores = len(os.sched_getaffinity(0))
    made = f"`{command}` on {datetime.now(UTC):%Y-%m-%d}."
    machine = {
        "GPU": f"{present.name}, {present.memory / 2**30:.0f} GiB",
        "compute capability": present.compute_capability,
        "driver": f"CUDA {present.driver}",
        "cores": cores,
    }
    parts: dict[str, Part] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        peer = options.peer_python
        session = Session(Path(name), peer or Path(sys.executable), cores, options.quick, options.laps)
        try:
            engines, parts["a"] = build(session)
            for letter in options.parts:
                part = measure(letter, session, engines, options.minutes, peer=peer is not None)
                if part is not None:
                    parts[letter] = part
                report = Report(
                    title="On an NVIDIA GPU",
                    introduction="Ways of running the same weights take turns within one run. Medians, with"
                    " the range from the 10th to the 90th percentile beside them.",
                    quick=options.quick,
                    machine=machine,
                    versions={"packages": installed()},
                    parts={key: replace(part, made=made) for key, part in sorted(parts.items())},
                )
                for path, text in ((options.json, report.json()), (options.markdown, report.markdown())):
                    if path is not None:
                        path.write_text(text)
        except InputError as error:
            print(f"{PROG}: {error}", file=sys.stderr)
            return 2
        except (LineFailed, NotTheSame, PeerFailed) as error:
            print(f"{PROG}: {error}", file=sys.stderr)
            return 1
    print(report.markdown())
    return 0


def build(session: "Session", sizes: "Sequence[ModelSize]" = SIZES) -> "tuple[dict[str, Path], Part]":
    """Build engines with the first runtime that does, and say what became of each."""
    from comparison.report import Part, Table
    from inspection import BIN

    from engine_runtime.engine_file import read_manifest

    rows: list[tuple[str, ...]] = []
    engines: dict[str, Path] = {}
    for way, options in WAYS.items():
        for size in sizes:
            graph = session.weights(size, SIDE).with_suffix(".onnx")
            path = session.folder / f"{size}.engine"
            words = [BIN / "build-engine", graph, "-o", path, *options, "--max-batch", f"{MAX_BATCH}"]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            if done.returncode:
                rows.append((f"{way}, {size.upper()}", done.stderr.strip().rpartition("\n")[2], "", ""))
                continue
            engines[size] = path
            manifest = read_manifest(path)
            proof = manifest.proof
            rows.append(
                (
                    f"{way}, {size.upper()}",
                    f"{manifest.library or manifest.runtime} {manifest.runtime_version}",
                    f"{proof.largest_score_difference:.1e}" if proof.complete else "not run",
                    f"{proof.half_precision_share:.0%}",
                )
            )
        if engines:
            break
    columns = ("runtime, size", "found", "score difference from FP32", "convolutions in half")
    return engines, Part("What runs here", Table(columns, rows), [])


def measure(
    letter: str, session: "Session", engines: dict[str, Path], minutes: float, *, peer: bool
) -> "Part | None":
    """Measure one part; None where there is no engine for it."""
    if letter == "b":
        from acceleration.speed import compare

        return compare(session, SIZES, engines, SIDE, peer=peer)
    if letter == "a" or "s" not in engines:
        return None
    from acceleration.lines import cameras, soak

    lines: dict[str, Callable[[], Part]] = {
        "d": lambda: cameras(session, engines["s"]),
        "e": lambda: soak(session, engines["s"], session.seconds(minutes)),
    }
    return lines[letter]()


def installed() -> dict[str, str]:
    """Give the versions of what is here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--parts", nargs="+", choices=tuple("abde"), default=list("abde"), metavar="PART")
    made.add_argument("--quick", action="store_true", help="a few laps: to see that it runs")
    made.add_argument("--laps", type=int, metavar="N", help="of every comparison")
    made.add_argument("--minutes", type=float, default=10.0, help="of part e (default: %(default)s)")
    made.add_argument(
        "--peer-python",
        type=program,
        metavar="FILE",
        help="Python of an environment with anomalib and a torch for this GPU; else anomalib is left out",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    return made


def program(text: str) -> Path:
    if not os.access(text, os.X_OK) or not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: expected the Python of an environment that has anomalib")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
