"""Listens to a line's verdicts and keeps the last minute of them, for pages that are open now."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from lines.line_config import LineConfig
from verdicts import Health, LineSilent, Lost, Verdict, subscribe

_log = logging.getLogger(__name__)
_MOST_FRESH: Final = 20_000
_MOST_LATENCIES: Final = 6_000
_WINDOW_S: Final = 60
_PACE_WEIGHT: Final = 0.2
SILENCE_S: Final = 3.0


class Listening:
    """A thread that listens to one line. What it offers may be read in any thread.

    Attributes:
        fresh: verdicts that no page has been shown yet, with the product that was judged; the oldest go when
            there are many.
        left_out: how many went.
        last: the newest verdict of each camera.
        arrived: called in the thread after each verdict.
        pace_s: about how many seconds pass between two verdicts of each camera.
    """

    def __init__(self, line: LineConfig, came: Callable[[Verdict, str | None], None]) -> None:
        """Prepare; ``start`` begins.

        Args:
            line: which one.
            came: called in this thread for each verdict.
        """
        self.fresh: deque[tuple[Verdict, str | None]] = deque(maxlen=_MOST_FRESH)
        self.left_out = 0
        self.arrived: Callable[[], object] = lambda: None
        self.last: dict[str, Verdict] = {}
        self.pace_s: dict[str, float] = {}
        self._came_s: dict[str, float] = {}
        self._line = line
        self._came = came
        self._seconds: deque[list[int]] = deque(maxlen=_WINDOW_S + 1)
        """The second, then passes, rejects and faults that came in it."""
        self._latencies: deque[tuple[float, float]] = deque(maxlen=_MOST_LATENCIES)
        self._faults: deque[tuple[float, str]] = deque(maxlen=_MOST_LATENCIES)
        self._silence_after: Health | None = None
        self._subscription = subscribe(
            line.publish,
            line=line.name,
            silence_s=SILENCE_S,
            on_lost=self._lost,
            # What the journal's file tells need not be asked of the line.
            control=line.control if line.journal is None else None,
            curve=line.curve,
        )
        self._thread = threading.Thread(target=self._run, name=f"listening to {line.name}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    @property
    def health(self) -> Health | None:
        """The last health; None before the first."""
        return self._subscription.health

    @property
    def silent(self) -> bool:
        """Whether there has been no sign of life for a while, or never one."""
        health = self.health
        return health is None or health is self._silence_after

    def latency(self) -> dict[str, float] | None:
        """Tell how long passes and rejects of the last minute took, in milliseconds; None without any."""
        since = time.monotonic() - _WINDOW_S
        took = sorted(total for at, total in list(self._latencies) if at >= since)
        if not took:
            return None
        return {
            "median": took[len(took) // 2],
            "p99": took[min(int(len(took) * 0.99), len(took) - 1)],
            "longest": took[-1],
        }

    def reason(self) -> str | None:
        """Give the most frequent reason of the faults of the last minute; None without any."""
        since = time.monotonic() - _WINDOW_S
        counted = Counter(reason for at, reason in list(self._faults) if at >= since)
        return next((reason for reason, _ in counted.most_common(1)), None)

    def last_minute(self) -> dict[str, int]:
        """Count the decisions of the last 60 seconds."""
        since = time.monotonic() - _WINDOW_S
        counted = [0, 0, 0]
        for second, *numbers in list(self._seconds):
            if second >= since:
                counted = [sum(pair) for pair in zip(counted, numbers, strict=True)]
        return dict(zip(("pass", "reject", "fault"), counted, strict=True))

    def take(self) -> tuple[list[tuple[Verdict, str | None]], int]:
        """Give the fresh verdicts, and how many were left out before them."""
        taken = [self.fresh.popleft() for _ in range(len(self.fresh))]
        left_out, self.left_out = self.left_out, 0
        return taken, left_out

    def _run(self) -> None:
        while True:
            try:
                verdict = next(self._subscription)
            except LineSilent as silence:
                self._silence_after = silence.health
                continue
            except StopIteration:
                return
            except Exception:
                _log.exception("%s: listening", self._line.name)
                time.sleep(1)
                continue
            health = self.health
            product = None if health is None else health.product
            if len(self.fresh) == _MOST_FRESH:
                self.left_out += 1
            self.fresh.append((verdict, product))
            self.arrived()
            self.last[verdict.camera] = verdict
            self._measure_pace(verdict.camera)
            self._count(verdict)
            self._came(verdict, product)

    def _measure_pace(self, camera: str) -> None:
        now_s = time.monotonic()
        passed_s = now_s - self._came_s.get(camera, now_s)
        known_s = self.pace_s.get(camera, passed_s)
        self.pace_s[camera] = known_s + _PACE_WEIGHT * (passed_s - known_s)
        self._came_s[camera] = now_s

    def _count(self, verdict: Verdict) -> None:
        second = int(time.monotonic())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0, 0])
        if verdict.latency_ms.infer is not None:
            self._latencies.append((time.monotonic(), verdict.latency_ms.total))
        if verdict.reason is not None:
            self._faults.append((time.monotonic(), verdict.reason))
        self._seconds[-1][1 + ("pass", "reject", "fault").index(verdict.decision)] += 1

    def _lost(self, lost: Lost) -> None:
        _log.warning("%s: lost %d to %d of boot %s", self._line.name, lost.first, lost.last, lost.boot)
