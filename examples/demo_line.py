"""The simulated line of the demo goes on, with the page on which operators watch it (``make demo-line``)."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.inspection import BIN

ADDRESS = "http://127.0.0.1:8321/"


def main() -> None:
    """Run the line and the page until Ctrl-C; the demo first, where it was not run yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="(default: %(default)s)")
    options = parser.parse_args()
    config: Path = options.out / "line3.yaml"
    if not (options.out / "flange.calibration.yaml").exists():
        print("the demo comes first, as it trains the model (about 90 s)", flush=True)
        subprocess.run(
            [sys.executable, "-m", "examples.demo", "--seconds", "5", "--out", options.out], check=True
        )
    commands = [["inspectd", "--config", config], ["inspectd-dashboard", "--line", config]]
    running = [subprocess.Popen([BIN / command[0], *command[1:]]) for command in commands]
    print(f"\nopen {ADDRESS}    (Ctrl-C ends line and page)", flush=True)
    try:
        while all(process.poll() is None for process in running):
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait() for process in running]
    sys.exit(next((code for code in codes if code > 0), 0))


if __name__ == "__main__":
    main()
