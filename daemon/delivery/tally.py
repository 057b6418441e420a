"""Counts what is published: reasons, rates and latencies for the status, and a line of the log a minute."""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from verdicts.statistics import LastFault, LatencySummary, Statistics
from verdicts.verdict import Reason, Verdict

_SPAN_S: Final = 5.0
_SPANS: Final = 12  # together a minute
_MINUTE_S: Final = 60.0
_STEPS: Final = 50
"""Steps of the latencies' scale for each factor of e: each is 2 % above the one before."""
_MOST_WAITING: Final = 1000
_log = logging.getLogger("inspectd")


class _Span:
    """What was published in a few seconds."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.verdicts = 0
        self.latencies: Counter[int] = Counter()  # by step
        self.longest_ms = 0.0


class Tally:
    """Counts verdicts in bounded memory, however many there are; used by one thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing counted.

        Args:
            clock: gives seconds.
        """
        self._clock = clock
        self._began_s = clock()
        self._reasons: Counter[Reason] = Counter()
        self._last_fault: LastFault | None = None
        self._spans: deque[_Span] = deque([_Span(self._began_s)], _SPANS)
        self._logged_s = self._began_s
        self._unlogged: Counter[str] = Counter()  # decisions and reasons
        self._waiting: list[tuple[float, Verdict]] = []

    def count(self, verdict: Verdict) -> None:
        """Count one that is published, soon: many together take a fraction of the time on the line's way."""
        self._waiting.append((self._clock(), verdict))
        if len(self._waiting) >= _MOST_WAITING:
            self._sum_up()

    def _sum_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for now, verdict in waiting:
            self._add(verdict, now)

    def _add(self, verdict: Verdict, now: float) -> None:
        if now - self._spans[-1].began_s >= _SPAN_S:
            self._spans.append(_Span(now))
        span = self._spans[-1]
        span.verdicts += 1
        self._unlogged[verdict.decision] += 1
        if verdict.reason is not None:
            self._reasons[verdict.reason] += 1
            self._unlogged[verdict.reason] += 1
            self._last_fault = LastFault(verdict.camera, verdict.frame, verdict.reason, verdict.captured_at)
            return
        total_ms = verdict.latency_ms.total
        span.latencies[math.ceil(math.log(max(total_ms, 0.001)) * _STEPS)] += 1
        span.longest_ms = max(span.longest_ms, total_ms)

    def statistics(self, boot: str) -> Statistics:
        """Tell what was counted, and of the last minute how fast it was.

        Args:
            boot: of the daemon.
        """
        self._sum_up()
        now = self._clock()
        while len(self._spans) > 1 and now - self._spans[0].began_s > _MINUTE_S:
            self._spans.popleft()
        began_s = self._spans[0].began_s if now - self._spans[0].began_s <= _MINUTE_S else now - _MINUTE_S
        spans = [span for span in self._spans if span.began_s >= began_s]
        window_s = max(now - began_s, 0.001)
        return Statistics(
            boot=boot,
            reasons=dict(self._reasons),
            window_s=round(window_s, 1),
            per_second=round(sum(span.verdicts for span in spans) / window_s, 2),
            latency_ms=_summary(spans),
            last_fault=self._last_fault,
        )

    def log(self, line: str) -> None:
        """Say once a minute what became of the frames, if there were any; called about once a second.

        Args:
            line: name of the line.
        """
        now = self._clock()
        if now - self._logged_s < _MINUTE_S:
            return
        self._logged_s = now
        self._sum_up()
        counted, self._unlogged = self._unlogged, Counter()
        verdicts = counted["pass"] + counted["reject"] + counted["fault"]
        if not verdicts:
            return
        latency = _summary(self._spans)
        took = (
            "none judged"
            if latency is None
            else f"latency median {latency.median:.1f} ms, 99 % {latency.p99:.1f} ms, "
            f"longest {latency.longest:.1f} ms"
        )
        faults = ", ".join(
            f"{counted[reason]} {reason}"
            for reason in ("overload", "camera", "engine", "journal", "golden", "shutdown")
            if counted[reason]
        )
        _log.info(
            "%s: last minute: %d verdicts, %d missed the deadline, %s%s",
            line,
            verdicts,
            counted["deadline"],
            took,
            f"; other faults: {faults}" if faults else "",
        )


def _summary(spans: "list[_Span] | deque[_Span]") -> LatencySummary | None:
    steps: Counter[int] = Counter()
    for span in spans:
        steps.update(span.latencies)
    if not steps:
        return None
    longest = max(span.longest_ms for span in spans)
    return LatencySummary(_quantile(steps, 0.5, longest), _quantile(steps, 0.99, longest), round(longest, 3))


def _quantile(steps: Counter[int], share: float, longest: float) -> float:
    wanted, seen = share * steps.total(), 0
    for step in sorted(steps):
        seen += steps[step]
        if seen >= wanted:
            return round(min(math.exp(step / _STEPS), longest), 3)
    return round(longest, 3)
