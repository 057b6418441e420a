"""Gives each frame its verdict, once, and sends those of one turn of the event loop together."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.delivery.archive import Archive, Taken
from daemon.delivery.drift_watch import DriftWatch
from daemon.delivery.journaled_publisher import JournaledPublisher
from daemon.delivery.preview import Preview
from daemon.journal.stamps import iso
from daemon.judging.golden import take_sample
from daemon.judging.lane import Judged, NotJudged
from daemon.judging.ledger import CapturedFrame, FrameKey, Ledger
from daemon.judging.product import Product
from pictures.heatmap import MapGeometry
from pictures.view import at
from verdicts.verdict import Decision, Latency, Peak, Reason, Verdict


class _Scored(NamedTuple):
    """What a verdict says of a frame that a lane has judged."""

    score: float
    peak: Peak | None
    wait_ms: float
    infer_ms: float
    archive: str | None
    parts: dict[str, float] | None


class VerdictBatch:
    """The verdicts of this turn, which one transaction journals. Belongs to the thread of the event loop.

    Whoever comes first closes a frame in the ledger and so decides its verdict: the lane that judged it, its
    deadline, a camera that died or the shutdown. Whoever comes later finds it closed.

    Attributes:
        archive: where the pictures of rejects go; None: nowhere.
        preview: where small pictures of all go, for who looks now; None: nowhere.
        drift: looks at judged parts; None: nobody does.
        seq: of the last verdict: they are numbered without a gap.
        withheld: products whose parts are not released; their verdicts are faults.
        idle: set when every captured frame has had its verdict sent.
        on_engine_failure: told of each batch on which an engine failed.
    """

    def __init__(
        self,
        line: str,
        boot: str,
        *,
        ledger: Ledger,
        publisher: JournaledPublisher,
        archive: Archive | None,
        preview: Preview | None,
        drift: DriftWatch | None,
        at_end: Callable[[Callable[[], object]], None],
    ) -> None:
        """Begin with ``seq`` 0.

        Args:
            line: name of the line.
            boot: hexadecimal digits that name this start of the daemon.
            ledger: in which every captured frame is open until its verdict.
            publisher: where the verdicts go.
            archive: where the pictures of rejects go.
            preview: where small pictures of all go, for who looks now.
            drift: looks at judged parts.
            at_end: does something last in a turn of the event loop, as ``Turns.at_end``.
        """
        self.archive = archive
        self.withheld: frozenset[Product] = frozenset()
        self.seq = 0
        self.idle = asyncio.Event()
        self.on_engine_failure: Callable[[NotJudged], object] = lambda _: None
        self.preview = preview
        self.drift = drift
        self._at_end = at_end
        self._line = line
        self._boot = boot
        self._ledger = ledger
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._verdicts: list[Verdict] = []
        self._on_verdicts: Callable[[Sequence[Verdict]], object] | None = None

    def watched_by(self, on_verdicts: Callable[[Sequence[Verdict]], object] | None) -> None:
        """Show a function what is about to be sent; None ends that."""
        self._on_verdicts = on_verdicts

    def deliver(self, result: Judged | NotJudged) -> None:
        """Have a result taken in the event loop's thread; called in a lane's."""
        self._loop.call_soon_threadsafe(self.take, result)

    def take(self, result: Judged | NotJudged) -> None:
        """Give the frames of a lane's batch their verdicts, and their slots back to the cameras."""
        if result.lane.abandoned:
            return  # its frames were closed and freed when it was replaced
        if take_sample(result):
            if isinstance(result, NotJudged):
                self.on_engine_failure(result)
            return
        if isinstance(result, Judged):
            self._judged(result)
        else:
            for captured in result.frames:
                self.fault(captured.key, "engine")
            self.on_engine_failure(result)
        for captured in result.frames:
            captured.free()

    def _judged(self, judged: Judged) -> None:
        for row, captured in enumerate(judged.frames):
            if self._ledger.close(captured.key) is None:
                continue  # its deadline was faster
            score, anomaly_map = float(judged.scores[row]), judged.anomaly_maps[row]
            # A verdict that comes too late for the gate is not a pass, even if the timer has not fired yet.
            late = time.monotonic_ns() > captured.deadline_ns
            rejected = captured.lost or score > captured.product.threshold
            reason: Reason | None = "deadline" if late else None
            if captured.product in self.withheld:
                reason = reason or "golden"
            decision: Decision = "fault" if reason else "reject" if rejected else "pass"
            archive = None if late else self._archived(captured, score, anomaly_map)
            scored = _Scored(
                score,
                _peak(captured, captured.product.geometry, anomaly_map),
                (judged.started_ns - captured.captured_ns) / 1e6,
                (judged.finished_ns - judged.started_ns) / 1e6,
                None if archive is None else str(archive),
                None if judged.score_parts is None else _named(captured.product, judged.score_parts[row]),
            )
            verdict = self._put(captured, decision, reason, scored)
            if self.drift is not None and decision != "fault":
                self.drift.offer(captured, score, anomaly_map)
            busy = 2 * scored.wait_ms > (captured.deadline_ns - captured.captured_ns) / 1e6
            if self.preview is not None and captured.pixels is not None and not busy:
                self.preview.offer(captured.pixels, captured.product, verdict)

    def _archived(
        self, captured: CapturedFrame, score: float, anomaly_map: NDArray[np.float32]
    ) -> Path | None:
        """Have a frame's pictures kept that is rejected, or that the archive wants of those that pass."""
        if self.archive is None or captured.pixels is None:
            return None
        product = captured.product
        if captured.lost or score > product.threshold:
            keep = self.archive.keep
        elif self.archive.wants_pass(score, product.threshold):
            keep = self.archive.keep_pass
        else:
            return None
        return keep(_picture_name(captured), captured.pixels, anomaly_map, product, _taken(captured))

    def fault(self, key: FrameKey, reason: Reason) -> CapturedFrame | None:
        """Make a frame a fault; None when it had its verdict before."""
        captured = self._ledger.close(key)
        if captured is not None:
            self._put(captured, "fault", reason)
        return captured

    def _put(
        self,
        captured: CapturedFrame,
        decision: Decision,
        reason: Reason | None = None,
        scored: _Scored | None = None,
    ) -> Verdict:
        if not self._verdicts:
            self._at_end(self.flush)
        self.seq += 1
        total_ms = (time.monotonic_ns() - captured.captured_ns) / 1e6
        verdict = Verdict(
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
            captured_at=iso(_wall_clock(captured.captured_ns)),
            latency_ms=Latency(
                wait=None if scored is None else round(scored.wait_ms, 3),
                infer=None if scored is None else round(scored.infer_ms, 3),
                total=round(total_ms, 3),
            ),
            model=captured.product.manifest.model,
            archive=None if scored is None else scored.archive,
            score_parts=None if scored is None else scored.parts,
            mask=captured.product.calibrated.mask,
        )
        self._verdicts.append(verdict)
        return verdict

    def flush(self) -> None:
        """Journal and publish what is there."""
        if self._verdicts:
            verdicts, self._verdicts = self._verdicts, []
            if self._on_verdicts is not None:
                self._on_verdicts(verdicts)
            self._publisher.send(verdicts)
        if not len(self._ledger):
            self.idle.set()


def _named(product: Product, parts: NDArray[np.float32]) -> dict[str, float]:
    return dict(zip(product.manifest.maps, (round(part, 6) for part in parts.tolist()), strict=True))


def _picture_name(captured: CapturedFrame) -> str:
    camera, frame = captured.key
    return f"{_wall_clock(captured.captured_ns):%Y%m%dT%H%M%S}-{camera}-{frame:08d}"


def _taken(captured: CapturedFrame) -> Taken | None:
    size = captured.source.picture_size
    if captured.region is None or size is None:
        return None
    at_time = iso(_wall_clock(captured.captured_ns))
    return Taken(captured.key.camera, at_time, captured.region, size, captured.placed)


def _wall_clock(monotonic_ns: int) -> datetime:
    """Turn a monotonic time into the calendar's; the two clocks are compared now, as either may be set."""
    return datetime.fromtimestamp(time.time() - (time.monotonic_ns() - monotonic_ns) / 1e9, UTC)


def _peak(captured: CapturedFrame, geometry: MapGeometry, anomaly_map: NDArray[np.float32]) -> Peak | None:
    """Find the peak of an anomaly map in the camera's picture."""
    region, size = captured.region, geometry.frame
    if region is None:
        return None
    x, y = geometry.peak(anomaly_map)
    x, y = region.x + x * region.width / size.width, region.y + y * region.height / size.height
    if captured.placed is not None:
        # Pixels are centred on whole numbers there, and begin at them here.
        x, y = (max(0.0, side + 0.5) for side in at(captured.placed, x - 0.5, y - 0.5))
    return Peak(int(x), int(y))
