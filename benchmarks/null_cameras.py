"""What of a line's latency is the daemon's own: the GPU benchmark's cameras, an engine that judges nothing.

    python benchmarks/null_cameras.py

1, 4 and 16 simulated cameras as in part (d) of ``gpu.py``, without a GPU. What is slow there and not here is
the GPU's, or that machine's.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from acceleration.lines import cameras
from comparison.session import Session
from gpu import SIDE
from null_engine import make_null_engine

from engine_build.device import cpu_name, usable_cores


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five seconds of each, to see that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine, _ = make_null_engine(folder, SIDE)
        session = Session(folder, Path(sys.executable), 1, options.quick, None)
        part = cameras(session, folder / engine)
    print(f"{cpu_name()}, {usable_cores()} cores\n\n{part.table.markdown()}\n\n{' '.join(part.notes)}")


if __name__ == "__main__":
    main()
