"""Milliseconds of one frame in several engines, in turns, so that what else the machine does hits all alike.

python benchmarks/engines_in_turns.py a.engine b.engine
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from engine_runtime.engine import uncalibrated
from engine_runtime.open import open_engine

LAPS, FRAMES = 15, 12


def main() -> None:
    """Measure, and print a line for each engine."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("engines", type=Path, nargs="+")
    engines = {path: open_engine(path) for path in given.parse_args().engines}
    laps: dict[Path, list[float]] = {path: [] for path in engines}
    random = np.random.default_rng(0)
    for lap in range(LAPS + 1):  # the first warms up
        for path, engine in engines.items():
            size, quantiles = engine.manifest.input_size, uncalibrated(list(engine.manifest.maps))
            frame = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            began = time.perf_counter()
            for _ in range(FRAMES):
                engine.infer([frame], quantiles)
            if lap > 0:
                laps[path].append(1000 * (time.perf_counter() - began) / FRAMES)
    for path, found in laps.items():
        print(f"{path.name}: fastest {min(found):.1f} ms, median {statistics.median(found):.1f} ms")


if __name__ == "__main__":
    main()
