"""The registers in which a PLC finds the line and one verdict (docs/plc.md has the same table)."""

import math
import struct
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from plant.outputs import Delivery, LineNow
from verdicts.health import Health


class Register(NamedTuple):
    """A place in the map: 16-bit words from an offset on, high word first."""

    offset: int
    words: int
    meaning: str


MAP: Final[dict[str, Register]] = {
    "heartbeat": Register(0, 1, "counts up twice a second and begins at 0 again after 65535"),
    "state": Register(1, 1, "0 silent, 1 starting, 2 running, 3 degraded, 4 stopping, 5 failed"),
    "passes": Register(2, 2, "uint32, since the daemon's start"),
    "rejects": Register(4, 2, "uint32, likewise"),
    "faults": Register(6, 2, "uint32, likewise"),
    "valid": Register(8, 1, "1 while the registers below hold a verdict"),
    "decision": Register(9, 1, "1 pass, 2 reject, 3 fault"),
    "reason": Register(
        10,
        1,
        "of a fault: 1 deadline, 2 overload, 3 camera, 4 engine, 5 journal, 6 shutdown, 7 golden, "
        "255 another; else 0",
    ),
    "repeated": Register(11, 1, "1 where this verdict may have been here before; compare seq"),
    "camera": Register(12, 1, "its place among the cameras of the line's config, from 1 on; 0 unknown"),
    "boot": Register(13, 1, "the first four hexadecimal digits of the daemon's start"),
    "seq": Register(14, 2, "uint32, counts the verdicts of one start of the daemon from 1"),
    "frame": Register(16, 2, "uint32, number of the camera's frame"),
    "score": Register(18, 2, "float32; NaN without one"),
    "threshold": Register(20, 2, "float32"),
    "total_ms": Register(22, 2, "float32, milliseconds from the capture to the verdict"),
    "captured_us": Register(24, 4, "uint64, microseconds since 1970 in UTC"),
    "part": Register(
        28, 16, "32 bytes of UTF-8, two in each register, the first in the high byte; then zeros"
    ),
}
WORDS: Final = 44

_STATES: Final = ("silent", "starting", "running", "degraded", "stopping", "failed")
_DECISIONS: Final = ("", "pass", "reject", "fault")
_REASONS: Final = (None, "deadline", "overload", "camera", "engine", "journal", "shutdown", "golden")
_ANOTHER: Final = 255


def status_words(line: LineNow, heartbeat: int) -> list[int]:
    """Give the registers from ``heartbeat`` to ``faults``."""
    health: Health | None = line.health
    counts = (
        (0, 0, 0) if health is None else tuple(health.verdicts[name] for name in ("pass", "reject", "fault"))
    )
    words = [heartbeat & 0xFFFF, _STATES.index(line.state)]
    for count in counts:
        words += _uint32(count)
    return words


def verdict_words(delivery: Delivery, cameras: Sequence[str]) -> list[int]:
    """Give the registers from ``decision`` to ``part``."""
    verdict = delivery.verdict
    camera = cameras.index(verdict.camera) + 1 if verdict.camera in cameras else 0
    captured = datetime.fromisoformat(verdict.captured_at)
    words = [
        _DECISIONS.index(verdict.decision),
        _REASONS.index(verdict.reason) if verdict.reason in _REASONS else _ANOTHER,
        int(delivery.repeated),
        camera,
        int(verdict.boot[:4].ljust(4, "0"), 16),
        *_uint32(verdict.seq),
        *_uint32(verdict.frame),
        *_float32(math.nan if verdict.score is None else verdict.score),
        *_float32(verdict.threshold),
        *_float32(verdict.latency_ms.total),
        *_words(struct.pack(">Q", int(captured.timestamp() * 1e6))),
    ]
    # A character that would be cut in two is left out.
    part = (verdict.part or "").encode()[:32].decode(errors="ignore").encode().ljust(32, b"\0")
    return words + _words(part)


def _uint32(number: int) -> list[int]:
    return _words(struct.pack(">I", number & 0xFFFF_FFFF))


def _float32(number: float) -> list[int]:
    try:
        return _words(struct.pack(">f", number))
    except OverflowError:
        return _words(struct.pack(">f", math.copysign(math.inf, number)))


def _words(content: bytes) -> list[int]:
    return [word for (word,) in struct.iter_unpack(">H", content)]
