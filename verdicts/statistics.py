"""What a line has done lately: more than health carries, for people and dashboards, and no sign of life."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from verdicts.checks import MalformedMessage
from verdicts.verdict import Reason


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """How long verdicts took from the capture to the decision, in milliseconds.

    Attributes:
        median: half of them were faster.
        p99: 99 of 100 were faster.
        longest: of all.
    """

    median: float
    p99: float
    longest: float


@dataclass(frozen=True, slots=True)
class LastFault:
    """The newest fault verdict.

    Attributes:
        camera: name of the camera.
        frame: number of the frame.
        reason: of the fault.
        captured_at: ISO 8601, UTC, with microseconds.
    """

    camera: str
    frame: int
    reason: str
    captured_at: str


@dataclass(frozen=True, slots=True)
class CameraStatistics:
    """What a camera with ``present`` or ``trigger`` has seen since the daemon's start.

    Attributes:
        pictures: that it took.
        empty: of them, those without a part; with triggers: that no trigger asked for. They have no verdict.
        parts: pictures that were taken to be judged.
        missed: parts that were seen and not taken, or triggers without a picture; each is a fault.
        triggers: that came; 0 with ``present``.
        double_triggers: of them, those that came too soon after the one before; each is a fault.
        speed_px_per_s: of the belt along x and y in the camera's picture, the last time that a part was in
            view; None while it is not known.
    """

    pictures: int
    empty: int
    parts: int
    missed: int
    triggers: int
    double_triggers: int
    speed_px_per_s: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What became of a line's frames.

    Attributes:
        boot: the start of the daemon that they belong to.
        reasons: number of faults since that start, by reason; reasons without one are left out.
        window_s: seconds that the next two are about: the last minute, or less right after the start.
        per_second: verdicts per second.
        latency_ms: of passes and rejects; None when there were none.
        last_fault: since the start; None when there was none.
        cameras: those that choose among their pictures, by name.
    """

    boot: str
    reasons: Mapping[Reason, int]
    window_s: float
    per_second: float
    latency_ms: LatencySummary | None
    last_fault: LastFault | None
    cameras: Mapping[str, CameraStatistics] = field(default_factory=dict)


def encode_statistics(statistics: Statistics) -> bytes:
    """Write them as JSON in UTF-8."""
    content = asdict(replace(statistics, cameras={})) | {
        "reasons": dict(statistics.reasons),
        "cameras": {name: asdict(camera) for name, camera in statistics.cameras.items()},
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode_statistics(payload: bytes) -> Statistics:
    """Read them, believing nothing; keys that a newer line adds are passed over.

    Raises:
        MalformedMessage: they are not what ``encode_statistics`` writes.
    """
    try:
        content: Any = json.loads(payload)
        latency, fault = content["latency_ms"], content["last_fault"]
        return Statistics(
            boot=_text(content["boot"]),
            reasons={reason: _count(number) for reason, number in content["reasons"].items()},
            window_s=_number(content["window_s"]),
            per_second=_number(content["per_second"]),
            latency_ms=None
            if latency is None
            else LatencySummary(*(_number(latency[key]) for key in ("median", "p99", "longest"))),
            last_fault=None
            if fault is None
            else LastFault(
                _text(fault["camera"]),
                _count(fault["frame"]),
                _text(fault["reason"]),
                _text(fault["captured_at"]),
            ),
            cameras={name: _camera(camera) for name, camera in content.get("cameras", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MalformedMessage(f"statistics: {error}") from error


def _camera(content: Any) -> CameraStatistics:
    speed = content["speed_px_per_s"]
    counts = {entry.name: _count(content[entry.name]) for entry in fields(CameraStatistics)[:-1]}
    if speed is not None:
        x, y = speed
        speed = (_finite(x), _finite(y))
    return CameraStatistics(**counts, speed_px_per_s=speed)


def _finite(value: object) -> float:
    if type(value) not in (int, float) or not abs(value) < float("inf"):  # type: ignore[arg-type]
        raise TypeError(f"found {value!r:.80}, expected a finite number")
    return float(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.80}, expected text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"found {value!r:.80}, expected a whole number from 0")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):  # type: ignore[operator]
        raise TypeError(f"found {value!r:.80}, expected a number from 0")
    return float(value)  # type: ignore[arg-type]
