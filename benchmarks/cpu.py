"""Ours and the peer, anomalib, on this machine's CPU, in turns within one run.

    python benchmarks/cpu.py --json docs/benchmarks/cpu.json --markdown docs/benchmarks/cpu.md
    python benchmarks/cpu.py --parts a c --quick
    python benchmarks/cpu.py --parts d --update cpu.json --json cpu.json --markdown cpu.md

parts:
  a  the same weights, S and M, single frames and batches: four ways to run them
  b  XS beside the peer's smallest
  c  from a frame of 1024×1024 to the verdict, pre- and post-processing included
  d  1 to 16 simulated cameras on one inspectd, beside the bare engine
  e  image sizes from 128 to 1024
  f  start-up time and memory
  g  a training step
  h  PaDiM beside our XS and the peer's models: speed, opening and size; needs --product

The first run installs the peer into an environment of its own (2 GB with torch's CPU build, over 6 GB with
CUDA). All of it takes some twenty minutes on two cores; nothing else should run meanwhile.
"""

import argparse
import importlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError
from foundation.option_types import whole_number

if TYPE_CHECKING:
    from comparison.report import Part

PROG = "cpu.py"
PARTS = {
    "a": "same_weights",
    "b": "smallest",
    "c": "frame_to_verdict",
    "d": "cameras",
    "e": "image_sizes",
    "f": "footprint",
    "g": "training_step",
    "h": "densities",
}
INTRODUCTION = (
    "Ours and the peer, anomalib's EfficientAd, take turns within each part, each in a process that"
    " stays warm, with the same number of threads. Medians, with the range from the 10th to the 90th"
    " percentile beside them. “× ours” is how many times as long as ours the other takes: the median"
    " over the turns that belong together. [How it is kept fair](README.md#beside-anomalib-on-the-cpu)."
)
OURS = ("inspectd", "openvino", "onnxruntime", "torch", "numpy", "opencv-python-headless")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    options = parser().parse_args(argv)
    import subprocess

    from comparison.equality import NotTheSame
    from comparison.line import LineFailed
    from peer.client import PeerFailed
    from peer.install import InstallFailed

    try:
        run(options, argv)
    except InputError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except (InstallFailed, LineFailed, NotTheSame, PeerFailed) as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"{PROG}: {Path(error.cmd[0]).name} ended with exit code {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: stopped", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace, argv: list[str] | None) -> None:
    """Compare part by part; what is found so far is written after each."""
    from comparison.report import Report
    from comparison.session import Session
    from peer.install import install

    from engine_build.device import cpu_name, usable_cores

    threads = options.threads or usable_cores()
    if "h" in options.parts and options.product is None:
        raise InputError("--parts h: needs images of a product to learn from: --product DIR")
    for path in filter(None, (options.json, options.markdown)):
        if not path.absolute().parent.is_dir():  # found before the work, not after it
            raise InputError(f"{path}: cannot be written: {path.parent} is no folder")
    machine = {
        "CPU": cpu_name(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load_before": f"{os.getloadavg()[0]:.1f}",
        "threads": threads,
    }
    parts = {} if options.update is None else parts_of(options.update)
    python = install(options.peer_venv)
    command = shlex.join(["python", "benchmarks/cpu.py", *(sys.argv[1:] if argv is None else argv)])
    made = f"`{command}` on {datetime.now(UTC):%Y-%m-%d}."
    with tempfile.TemporaryDirectory(prefix="cpu-") as folder:
        session = Session(Path(folder), python, threads, options.quick, options.laps, options.product)
        with session.peer() as peer:
            peer_versions = peer.ask("versions")
        for letter in options.parts:
            began = time.monotonic()
            found = importlib.import_module(f"comparison.{PARTS[letter]}").compare(session)
            parts[letter] = replace(found, made=made)
            took = f"{time.monotonic() - began:.0f} s"
            print(f"\n({letter}) {found.title} ({took})\n{found.table.text()}", flush=True)
            report = Report(
                title="On a CPU, beside anomalib",
                introduction=INTRODUCTION,
                quick=options.quick,
                machine=machine,
                versions={"ours": {name: version(name) for name in OURS}, "the peer": peer_versions},
                parts=dict(sorted(parts.items())),
            )
            write(options.json, report.json())
            write(options.markdown, report.markdown())


def parts_of(file: Path) -> "dict[str, Part]":
    """Read the parts of an earlier run.

    Raises:
        InputError: the file was not written by this program.
    """
    from comparison.report import Part

    try:
        parts = json.loads(file.read_text())["parts"]
        return {letter: Part.of(content) for letter, content in parts.items()}
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: expected what --json has written") from error


def write(path: Path | None, text: str) -> None:
    """Write or replace a file, if one is wanted."""
    from foundation.files import write_whole

    if path is not None:
        write_whole(path, text.encode())


positive = whole_number(1)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--parts",
        nargs="+",
        choices=tuple(PARTS),
        default=[part for part in PARTS if part != "h"],
        metavar="PART",
        help="(default: all but h, which needs --product)",
    )
    made.add_argument("--quick", action="store_true", help="a lap or two, small batches: to see that it runs")
    made.add_argument(
        "--laps",
        type=positive,
        metavar="N",
        help="of every comparison (default: each has its own number)",
    )
    made.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="on either side (default: all cores this may use)",
    )
    made.add_argument(
        "--peer-venv",
        type=Path,
        default=Path("/tmp/peer-venv"),
        metavar="DIR",
        help="the peer's environment, made where it is not there (default: %(default)s)",
    )
    made.add_argument(
        "--product", type=Path, metavar="DIR", help="a data set such as MVTec AD bottle, for part h"
    )
    made.add_argument(
        "--update", type=Path, metavar="FILE", help="take the other parts from what --json has written before"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    return made


if __name__ == "__main__":
    sys.exit(main())
