"""Looks at judged parts, beside the line and never in its way: whether they still look as calibrated.

Rejects are looked at, too: a lamp that fails may leave no part that passes. A few of them raise no alarm.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.drift import Drift, DriftMonitor
from calibration.drift_baseline import FIRST_SPOT, VALUES, values_of
from daemon.host.scheduling import go_last
from daemon.judging.ledger import CapturedFrame
from daemon.judging.product import Product
from foundation.errors import InputError
from foundation.files import write_whole
from pictures.appearance import Appearance
from pictures.frames import Frame
from verdicts.health import DriftHealth

_SHARE: Final = 0.005
"""Of one core's time that it may take: after a part it rests until that holds again."""
_SCHEMA: Final = 1
_PARTS_UNKNOWN: Final = 250
"""From which an earlier version accepted drift, which did not write it down."""
_LONGEST_CLOSE_S: Final = 1.0
_log = logging.getLogger("inspectd")

Key = tuple[str | None, str]
"""Name of a product, and of a camera."""


class _Sample(NamedTuple):
    """What lies in the buffers."""

    product: Product
    camera: str
    frame: int
    score: float


@dataclass(slots=True)
class _Watched:
    """One product at one camera."""

    calibration_sha256: str
    monitor: DriftMonitor
    appearance: Appearance


@dataclass(frozen=True, slots=True)
class DriftNews:
    """What the watch tells: a drift that was found, or None when one is over."""

    product: str | None
    camera: str
    frame: int
    drift: Drift | None


class DriftWatch:
    """Watches all products at all cameras.

    ``offer`` is called by the event loop and copies into memory that is there already. All else happens in a
    thread that gives way to everybody, one part at a time; parts that come meanwhile are not looked at.
    """

    def __init__(
        self,
        parts_per_false_alarm: float,
        accepted: Path | None,
        tell: Callable[[DriftNews], object],
    ) -> None:
        """Start the thread.

        Args:
            parts_per_false_alarm: see ``DriftMonitor``.
            accepted: where it is kept what people have accepted as normal; None: nowhere.
            tell: called in the thread when something has changed.

        Raises:
            InputError: ``accepted`` is not such a file.
        """
        self.parts_per_false_alarm = parts_per_false_alarm
        self._accepted_file = accepted
        self._accepted = {} if accepted is None else _read(accepted)
        self._tell = tell
        self._pixels: dict[Product, Frame] = {}
        self._maps: dict[Product, NDArray[np.float32]] = {}
        self._free = True
        self._next_s = 0.0
        self._watched: dict[Key, _Watched] = {}
        self._alarms: dict[Key, tuple[int, Drift | None]] = {}
        self._work: SimpleQueue[_Sample | Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        self._thread.start()

    def take_up(self, products: Iterable[Product]) -> None:
        """Make room for a frame and a map of each product; at the start and after a reload."""
        kept = set(products)
        for product in kept:
            size, merge = product.manifest.input_size, product.merge
            tiles = () if merge is None else (len(merge.grid),)
            self._pixels.setdefault(product, np.empty((*tiles, *size, 3), np.uint8))
            self._maps.setdefault(product, np.empty(product.geometry.map, np.float32))
        for gone in self._pixels.keys() - kept:
            del self._pixels[gone], self._maps[gone]

    def offer(self, judged: CapturedFrame, score: float, anomaly_map: NDArray[np.float32]) -> None:
        """Look at a part, unless the last one is still being looked at, or was just now."""
        if not self._free or time.monotonic() < self._next_s:
            return
        product, pixels = judged.product, judged.pixels
        room = self._pixels.get(product)
        if room is None or pixels is None or room.shape != pixels.shape:
            return
        self._free = False
        np.copyto(room, pixels)
        np.copyto(self._maps[product], anomaly_map)
        self._work.put(_Sample(product, *judged.key, score))

    def health(self, product: str | None, cameras: Iterable[str]) -> dict[str, DriftHealth]:
        """Tell what has changed at each camera since the calibration."""
        return {camera: self._health((product, camera)) for camera in cameras}

    def _health(self, key: Key) -> DriftHealth:
        parts, drift = self._alarms.get(key, (0, None))
        if drift is None:
            return DriftHealth(parts, None, None, None, None)
        return DriftHealth(parts, drift.cause, drift.since, drift.amount, drift.do)

    def accept(self, product: str | None, camera: str | None) -> "Future[list[str]]":
        """Take what is usual now for the new normal, of one camera or of all.

        Returns:
            The cameras, when it is done and written down; or an InputError.
        """
        done: Future[list[str]] = Future()

        def work() -> None:
            try:
                done.set_result(self._accept(product, camera))
            except Exception as error:
                done.set_exception(error)

        self._work.put(work)
        return done

    def close(self) -> None:
        """End the thread."""
        self._work.put(None)
        self._thread.join(_LONGEST_CLOSE_S)

    # The thread.

    def _run(self) -> None:
        go_last()
        cv2.setNumThreads(1)  # OpenCV's own threads would not give way, and nobody would count their time
        values = np.empty(VALUES, np.float32)
        while (work := self._work.get()) is not None:
            if not isinstance(work, _Sample):
                work()
                continue
            began_s = time.thread_time()
            try:
                self._look(work, values)
            except Exception:  # it may cost an alarm; it may not cost the line
                _log.exception("drift: internal error")
            self._next_s = time.monotonic() + (time.thread_time() - began_s) / _SHARE
            self._free = True

    def _look(self, sample: _Sample, values: NDArray[np.float32]) -> None:
        product, key = sample.product, (sample.product.name, sample.camera)
        pixels, anomaly_map = self._pixels.get(product), self._maps.get(product)
        if pixels is None or anomaly_map is None:
            return  # it went with a reload
        watched = self._watched_at(product, key)
        if watched is None:
            return
        values_of(watched.appearance, product.picture(pixels), sample.score, anomaly_map, values)
        changed = watched.monitor.observe(sample.frame, values)
        alarm = watched.monitor.alarm
        self._alarms[key] = watched.monitor.observed, alarm
        if changed:
            self._tell(DriftNews(*key, sample.frame, alarm))

    def _watched_at(self, product: Product, key: Key) -> _Watched | None:
        watched = self._watched.get(key)
        if watched is not None and watched.calibration_sha256 == product.calibration_sha256:
            return watched
        baseline = product.calibrated.drift
        if baseline is None:
            return None
        monitor = DriftMonitor(baseline, self.parts_per_false_alarm)
        accepted = self._accepted.get(_name(key))
        if accepted is not None and accepted["calibration_sha256"] == product.calibration_sha256:
            monitor.restore(accepted["mean"], accepted["parts"])
        watched = _Watched(product.calibration_sha256, monitor, Appearance(baseline.picture()))
        self._watched[key] = watched
        return watched

    def _accept(self, product: str | None, camera: str | None) -> list[str]:
        keys = [key for key in self._watched if key[0] == product and camera in {None, key[1]}]
        fewest = min((self._watched[key].monitor.usual_of for key in keys), default=0)
        if fewest < DriftMonitor.FEWEST_TO_ACCEPT:
            raise InputError(
                f"drift: found {fewest} parts that were looked at, expected at least "
                f"{DriftMonitor.FEWEST_TO_ACCEPT} before they are the new normal"
            )
        for key in keys:
            watched = self._watched[key]
            watched.monitor.accept()
            self._alarms[key] = 0, None
            self._accepted[_name(key)] = {
                "calibration_sha256": watched.calibration_sha256,
                "mean": watched.monitor.means(),
                "parts": watched.monitor.accepted_from,
            }
        if self._accepted_file is not None:
            _write(self._accepted_file, self._accepted)
        return [camera for _, camera in keys]


def _name(key: Key) -> str:
    product, camera = key
    return f"{product or ''}/{camera}"


def _read(path: Path) -> dict[str, Any]:
    expected = "expected what inspectd keeps of accepted drift; remove it to begin with the calibration"
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            raise ValueError("another version")
        for entry in content["accepted"].values():
            means = np.array(entry["mean"], np.float64)
            if means.shape not in {(FIRST_SPOT,), (VALUES,)} or not np.isfinite(means).all():
                raise ValueError("not its numbers")
            str(entry["calibration_sha256"])
            if int(entry.setdefault("parts", _PARTS_UNKNOWN)) < 1:
                raise ValueError("not its numbers")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: {expected}") from error
    accepted: dict[str, Any] = content["accepted"]
    return accepted


def _write(path: Path, accepted: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps({"schema": _SCHEMA, "accepted": accepted}).encode(), 0o640)
