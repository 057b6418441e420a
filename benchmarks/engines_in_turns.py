"""Milliseconds of one frame in several engines, in turns, so that what else the machine does hits all alike.

python benchmarks/engines_in_turns.py a.engine b.engine
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from engine_runtime.engine import uncalibrated
from engine_runtime.open import open_engine
from foundation.command import run_command
from foundation.option_types import whole_number

PROG = "engines_in_turns.py"
FRAMES = 12


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and give its exit code."""
    return run_command(PROG, lambda: run(parser().parse_args(argv)))


def run(options: argparse.Namespace) -> int:
    """Measure, and print a line for each engine.

    Raises:
        InputError: an engine does not open.
    """
    engines = {path: open_engine(path) for path in options.engines}
    laps: dict[Path, list[float]] = {path: [] for path in engines}
    random = np.random.default_rng(0)
    for lap in tqdm(range(options.laps + 1), desc="laps", unit="lap"):  # the first warms up
        for path, engine in engines.items():
            size, quantiles = engine.manifest.input_size, uncalibrated(engine.manifest.maps)
            frame = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            began = time.perf_counter()
            for _ in range(FRAMES):
                engine.infer([frame], quantiles)
            if lap > 0:
                laps[path].append(1000 * (time.perf_counter() - began) / FRAMES)
    for path, found in laps.items():
        print(f"{path.name}: fastest {min(found):.1f} ms, median {statistics.median(found):.1f} ms")
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("engines", type=Path, nargs="+", metavar="ENGINE")
    made.add_argument(
        "--laps", type=whole_number(1), default=15, help=f"of {FRAMES} frames each (default: %(default)s)"
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
