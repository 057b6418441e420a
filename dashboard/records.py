"""A verdict as the dashboard keeps and shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from verdicts.verdict import Verdict

DECISIONS: Final = ("pass", "reject", "fault")
"""Stored by their place here."""
LABELS: Final = ("none", "defect", "false_reject", "unsure", "disputed")
"""Stored by their place here."""
PASS, REJECT, FAULT = range(3)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Shown:
    """A verdict with what people said of it.

    Attributes:
        row: its number in the roll-up; 0 for one that is not there yet.
        at_us: when the frame was captured, microseconds since 1970.
        archive: name of its overlay in the archive's folder, or a whole path that lies elsewhere.
        label: what people say of it, one of ``LABELS``.
        opinions: how many people said something.
    """

    row: int
    boot: str
    seq: int
    camera: str
    frame: int
    part: str | None
    decision: str
    reason: str | None
    score: float | None
    threshold: float
    peak: tuple[int, int] | None
    at_us: int
    wait_ms: float | None
    infer_ms: float | None
    total_ms: float
    product: str | None
    model: str
    archive: str | None
    label: str = "none"
    kind: str | None = None
    opinions: int = 0

    @property
    def id(self) -> str:
        """Its name for ever."""
        return f"{self.boot}-{self.seq}"

    def short(self, *, blind: bool = False) -> dict[str, Any]:
        """Give what the page shows of it in lists; blind: without what people said."""
        hidden = blind or self.label == "none"
        return {
            "id": self.id,
            "camera": self.camera,
            "frame": self.frame,
            "part": self.part,
            "decision": self.decision,
            "reason": self.reason,
            "score": self.score,
            "threshold": self.threshold,
            "peak": None if self.peak is None else {"x": self.peak[0], "y": self.peak[1]},
            "at": self.at_us / 1000,
            "latency_ms": self.total_ms,
            "product": self.product,
            "model": self.model,
            "pictures": self.archive is not None,
            "label": None if hidden else self.label,
            "kind": None if blind else self.kind,
            "opinions": None if blind else self.opinions,
        }


def shown(verdict: Verdict, product: str | None, archive: Path | None) -> Shown:
    """Make it of a verdict as it was published.

    Args:
        verdict: checked.
        product: that was judged then.
        archive: the archive's folder.
    """
    peak, latency = verdict.peak, verdict.latency_ms
    return Shown(
        row=0,
        boot=verdict.boot,
        seq=verdict.seq,
        camera=verdict.camera,
        frame=verdict.frame,
        part=verdict.part,
        decision=verdict.decision,
        reason=verdict.reason,
        score=verdict.score,
        threshold=verdict.threshold,
        peak=None if peak is None else (peak.x, peak.y),
        at_us=microseconds(verdict.captured_at),
        wait_ms=latency.wait,
        infer_ms=latency.infer,
        total_ms=latency.total,
        product=product,
        model=verdict.model,
        archive=archive_name(verdict.archive, archive),
    )


def archive_name(path: str | None, folder: Path | None) -> str | None:
    """Give the name of a picture within the archive's folder; the whole path where it lies elsewhere.

    A line that was started with a relative path to its config names pictures relative to where it started.
    """
    if path is None:
        return None
    place = Path(path)
    if folder is None or not place.name:
        return path
    if place.is_absolute():
        return place.name if place.parent == folder else path
    end = tuple(part for part in place.parent.parts if part != "..")
    return place.name if folder.parts[len(folder.parts) - len(end) :] == end else path


def microseconds(stamp: str) -> int:
    """Turn an ISO 8601 time of UTC, as in a verdict, into microseconds since 1970."""
    since = datetime.fromisoformat(stamp) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def parse_id(text: str) -> tuple[str, int] | None:
    """Read ``BOOT-SEQ``; None where it is something else."""
    boot, dash, seq = text.rpartition("-")
    if not dash or not 1 <= len(boot) <= 64 or not set(boot) <= set("0123456789abcdef"):
        return None
    if not seq.isascii() or not seq.isdigit() or len(seq) > 16:
        return None
    return boot, int(seq)


def counts(entries: Mapping[int, int]) -> dict[str, int]:
    """Name the numbers of each decision."""
    return {name: entries.get(place, 0) for place, name in enumerate(DECISIONS)}
