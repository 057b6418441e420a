"""What is wrong with a line, first cause first: a pure function of what is known of it.

A silent line has silent cameras, and a failed journal makes faults: what likely follows from something else
comes after it and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from verdicts.health import Health

Severity = Literal["stops", "degrades", "watch"]
_FAULTS_SHARE: Final = 0.01
_FEWEST: Final = 20
_FREE_MB: Final = 500


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong.

    Attributes:
        code: names the sentence, and what to do.
        subject: the camera, subscriber or folder that it is about; None for the line.
        severity: whether parts are not judged, or less well, or this is to be watched.
        follows: whether it is likely the consequence of one before it.
        values: that go into the sentence.
        detail: the line's own words.
    """

    code: str
    subject: str | None = None
    severity: Severity = "degrades"
    follows: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    detail: str | None = None

    @property
    def key(self) -> str:
        """Name what is wrong and with what."""
        return self.code if self.subject is None else f"{self.code}:{self.subject}"


@dataclass(frozen=True)
class Known:
    """What is known of a line.

    Attributes:
        health: the last one; None before the first.
        silent: whether none came for a while.
        minute: decisions of the last minute.
        reason: the most frequent reason of the faults in it.
        p99_ms: of the last minute; None without verdicts.
        deadline_ms: from capture to verdict.
        own: what the dashboard itself cannot do: code and detail.
        disks: folders and the megabytes that are free there.
        labels_altered: which row of the label file was altered; None when none was.
        clock_stepped: whether the line's clock was set in the last hour.
        unusual: the share of rejects lately and the usual one; None where it is as usual.
    """

    health: Health | None
    silent: bool
    minute: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    p99_ms: float | None = None
    deadline_ms: float = 1000
    own: Sequence[tuple[str, str]] = ()
    disks: Sequence[tuple[str, float]] = ()
    labels_altered: str | None = None
    clock_stepped: bool = False
    unusual: tuple[float, float] | None = None


def causes(known: Known) -> list[Cause]:
    """List what is wrong, the first cause first."""
    found = [*_of_the_line(known)]
    stopped = bool(found)
    found += [
        Cause("disk_nearly_full", folder, "stops" if free < 10 else "watch", values={"free_mb": round(free)})
        for folder, free in known.disks
        if free < _FREE_MB
    ]
    if known.health is not None and not stopped:
        found += _of_health(known.health)
    found += _of_verdicts(known, follows=bool(found))
    if known.unusual is not None:
        share, usual = known.unusual
        values = {"share": round(share, 5), "usual": round(usual, 5)}
        found.append(Cause("rejects_unusual", severity="watch", follows=bool(found), values=values))
    found += [Cause(code, severity="watch", detail=detail) for code, detail in known.own]
    if known.labels_altered is not None:
        found.append(Cause("labels_altered", severity="watch", detail=known.labels_altered))
    if known.clock_stepped:
        found.append(Cause("clock_stepped", severity="watch"))
    return found


def _of_the_line(known: Known) -> list[Cause]:
    health = known.health
    if health is None:
        return [Cause("line_never_heard", severity="stops")]
    if health.state == "failed":
        return [Cause("line_failed", severity="stops", detail=health.error)]
    if health.state == "stopping" and known.silent:
        return [Cause("line_stopped", severity="stops")]
    if known.silent:
        return [Cause("line_silent", severity="stops")]
    if health.state == "starting":
        return [Cause("line_starting", severity="stops")]
    return []


def _of_health(health: Health) -> list[Cause]:
    found: list[Cause] = []
    if health.journal is not None and (health.journal.state == "failed" or health.journal.error):
        found.append(Cause("journal_failed", severity="stops", detail=health.journal.error))
    golden = health.golden
    if golden is not None and golden.state in {"failed", "overdue"}:
        code = "golden_withheld" if golden.withheld else f"golden_{golden.state}"
        found.append(Cause(code, severity="stops" if golden.withheld else "degrades", detail=golden.error))
    found += [
        Cause(f"drift_{drift.cause}", name, detail=drift.amount)
        for name, drift in (health.drift or {}).items()
        if drift.cause is not None
    ]
    for name, camera in health.cameras.items():
        if camera.state in {"failed", "stalled", "opening"}:
            found.append(Cause(f"camera_{camera.state}", name, "stops", detail=camera.error))
        elif camera.state == "ended":
            found.append(Cause("camera_ended", name, "watch", detail=camera.error))
        elif camera.error:
            found.append(Cause("camera_trouble", name, detail=camera.error))
    found += [
        Cause("subscriber_absent", name, "stops", values={"unacknowledged": subscriber.unacknowledged})
        for name, subscriber in health.subscribers.items()
        if not subscriber.present
    ]
    if health.state == "degraded" and all(cause.severity == "watch" for cause in found):
        found.insert(0, Cause("engine_failing", severity="stops"))  # what else makes a health degraded
    if health.error:
        found.append(Cause("line_trouble", detail=health.error))
    return found


def _of_verdicts(known: Known, *, follows: bool) -> list[Cause]:
    total, faults = sum(known.minute.values()), known.minute.get("fault", 0)
    if total >= _FEWEST and faults > _FAULTS_SHARE * total:
        values = {"share": round(faults / total, 4), "reason": known.reason}
        code = "overload" if known.reason == "overload" else "faults"
        return [Cause(code, severity="stops", follows=follows, values=values)]
    if known.p99_ms is not None and known.p99_ms > 0.8 * known.deadline_ms:
        values = {"p99": round(known.p99_ms, 1), "deadline": known.deadline_ms}
        return [Cause("slow", severity="watch", follows=follows, values=values)]
    return []
