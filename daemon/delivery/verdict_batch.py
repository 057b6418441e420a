"""Makes the verdicts, numbers them, and sends those of one turn of the event loop together."""

import time
from datetime import UTC, datetime
from typing import NamedTuple

from daemon.delivery.journaled_publisher import Outlet
from daemon.journal.stamps import iso
from daemon.judging.ledger import CapturedFrame
from verdicts.message import Decision, Latency, Peak, Reason, Verdict


class Scored(NamedTuple):
    """What a verdict says of a frame that a lane has judged."""

    score: float
    peak: Peak | None
    wait_ms: float
    infer_ms: float
    archive: str | None


class Outbox:
    """The verdicts of this turn, which one transaction journals. Used by one thread only.

    Args:
        line: name of the line.
        boot: hexadecimal digits that name this start of the daemon.
        outlet: where they go.
    """

    def __init__(self, line: str, boot: str, outlet: Outlet) -> None:
        self.seq = 0
        """Of the last verdict: they are numbered without a gap."""
        self._line = line
        self._boot = boot
        self._outlet = outlet
        self._verdicts: list[Verdict] = []

    def __len__(self) -> int:
        return len(self._verdicts)

    def put(
        self, captured: CapturedFrame, decision: Decision, reason: Reason | None, scored: Scored | None
    ) -> None:
        """Give a frame its verdict.

        Args:
            captured: the frame.
            decision: on it.
            reason: of a fault; None for the others.
            scored: None when no lane has judged it.
        """
        self.seq += 1
        total_ms = (time.monotonic_ns() - captured.captured_ns) / 1e6
        self._verdicts.append(
            Verdict(
                line=self._line,
                camera=captured.key.camera,
                frame=captured.key.frame,
                part=captured.part,
                boot=self._boot,
                seq=self.seq,
                decision=decision,
                reason=reason,
                score=None if scored is None else scored.score,
                threshold=captured.product.threshold,
                peak=None if scored is None else scored.peak,
                captured_at=iso(wall_clock(captured.captured_ns)),
                latency_ms=Latency(
                    wait=None if scored is None else round(scored.wait_ms, 3),
                    infer=None if scored is None else round(scored.infer_ms, 3),
                    total=round(total_ms, 3),
                ),
                model=captured.product.manifest.model,
                archive=None if scored is None else scored.archive,
            )
        )

    def flush(self) -> None:
        """Journal and publish what is there."""
        if self._verdicts:
            verdicts, self._verdicts = self._verdicts, []
            self._outlet.send(verdicts)


def wall_clock(monotonic_ns: int) -> datetime:
    """Turn a monotonic time into the calendar's; the two clocks are compared now, as either may be set."""
    return datetime.fromtimestamp(time.time() - (time.monotonic_ns() - monotonic_ns) / 1e9, UTC)
