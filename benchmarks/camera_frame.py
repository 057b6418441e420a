"""What a camera's process spends on one tiny picture without `present`, `trigger`, `locate` or `mask`.

    git worktree add ../before c877092
    python benchmarks/camera_frame.py . ../before

Each checkout is measured in processes of its own, in turns: pictures of 8×8 pixels that are there already,
real packets, a slot that becomes free again at once. The fastest of many rounds is what the code costs; the
median says how busy the machine was.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = 150
PICTURES = 300
MODULES = ("daemon.capture.{}", "daemon.camera_{}")
"""Where the process and its parts lie, now and in older checkouts."""


def main() -> None:
    """Run the benchmark, or one turn of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+", help="folders that hold daemon/")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*one_turn(options.checkouts[0]))
        return
    found: dict[Path, list[list[float]]] = {checkout: [] for checkout in options.checkouts}
    for _ in range(options.turns):
        for checkout, turns in found.items():
            command = [sys.executable, __file__, str(checkout), "--one"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            turns.append([float(value) for value in done.stdout.split()])
    first = min(fastest for fastest, _ in next(iter(found.values())))
    for checkout, turns in found.items():
        fastest = min(turn[0] for turn in turns)
        median = statistics.median(turn[1] for turn in turns)
        print(f"{checkout}: {fastest:.2f} µs fastest, {median:.2f} µs median, {fastest / first - 1:+.1%}")


def one_turn(checkout: Path) -> tuple[float, float]:
    """Measure one checkout; µs of a picture, fastest and median."""
    sys.path.insert(0, str(checkout.resolve()))
    process, link = (_module(name) for name in ("process", "link"))
    took = []
    for _ in range(ROUNDS):
        camera = _Camera(process)
        delivering = _camera_process(process, link, camera)
        began = time.perf_counter()
        delivering._deliver(camera)
        took.append((time.perf_counter() - began) / PICTURES * 1e6)
    return min(took), statistics.median(took)


def _module(name: str) -> Any:
    for pattern in MODULES:
        try:
            return importlib.import_module(pattern.format(name))
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"no {name} of a camera in this checkout")


class _Camera:
    """Pictures that are there already."""

    live, picture_size = False, None

    def __init__(self, process: Any) -> None:
        import numpy as np

        self._left = PICTURES
        self._picture = process.Picture(np.zeros((8, 8, 3), np.uint8), None)

    def grab(self) -> Any:
        self._left -= 1
        return self._picture if self._left >= 0 else None


class _Link:
    """Encodes each message, and frees its slot at once."""

    def __init__(self, link: Any) -> None:
        self._link, self._freed = link, []

    def send(self, message: Any) -> None:
        self._link.encode(message)
        if getattr(message, "slot", None) is not None:
            self._freed.append(message.slot)

    def receive(self) -> Any:
        return self._link.Free((self._freed.pop(),)) if self._freed else None

    def wait(self, milliseconds: int | None) -> None:
        raise AssertionError("a slot is always free")


class _Counter:
    captured = 0


def _camera_process(process: Any, link: Any, camera: _Camera) -> Any:
    from dataclasses import asdict

    import numpy as np

    settings = process.CameraSettings("nowhere")
    known = link.Settings._fields
    told = {
        "settings": asdict(settings),
        "size": _size(process, camera._picture.pixels.shape[:2]),
        "slots": 2,
        "free": [0, 1],
        "next_frame": 1,
        "frozen": None,
    }
    told = link.Settings(**{key: value for key, value in told.items() if key in known})
    return process.CameraProcess(_Link(link), told, np.zeros((2, 8, 8, 3), np.uint8), _Counter())


def _size(process: Any, sides: tuple[int, int]) -> Any:
    return importlib.import_module(process.fit.__module__).Size(*sides)


if __name__ == "__main__":
    main()
