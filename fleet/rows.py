"""A verdict as a row of the lake."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from fleet.hubs import Stored
from verdicts import MalformedMessage, Verdict
from verdicts.checks import NAME
from verdicts.verdict import decode_verdict

PARTITION: Final = ["plant", "line", "day"]
"""Folders of the lake; the day is that of the capture, in UTC."""

SCHEMA: Final = pa.schema(
    [
        pa.field("plant", pa.string(), nullable=False),
        pa.field("line", pa.string(), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        pa.field("boot", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("camera", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("part", pa.string()),
        pa.field("product", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("peak_x", pa.int64()),
        pa.field("peak_y", pa.int64()),
        pa.field("captured_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("stored_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("wait_ms", pa.float64()),
        pa.field("infer_ms", pa.float64()),
        pa.field("total_ms", pa.float64(), nullable=False),
        pa.field("archive", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """A checked verdict with what the hub knows of it."""

    plant: str
    product: str | None
    stored_at: datetime
    verdict: Verdict


def row_of(stored: Stored) -> Row:
    """Read what anybody may have put into the hub.

    Raises:
        MalformedMessage: it is not a whole verdict of schema 1 with its plant.
    """
    if not NAME.fullmatch(stored.plant):
        raise MalformedMessage(f"plant: found {stored.plant!r:.80}, expected a name")
    if stored.product is not None and not NAME.fullmatch(stored.product):
        raise MalformedMessage(f"product: found {stored.product!r:.80}, expected a name")
    return Row(stored.plant, stored.product, stored.stored_at, decode_verdict(stored.payload))


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Make the Arrow table of rows."""
    return pa.Table.from_pylist([_columns(row) for row in rows], schema=SCHEMA)


def _columns(row: Row) -> dict[str, Any]:
    verdict = row.verdict
    peak, latency = verdict.peak, verdict.latency_ms
    return {
        "plant": row.plant,
        "line": verdict.line,
        "day": verdict.captured_at[:10],
        "boot": verdict.boot,
        "seq": verdict.seq,
        "camera": verdict.camera,
        "frame": verdict.frame,
        "part": verdict.part,
        "product": row.product,
        "model": verdict.model,
        "decision": verdict.decision,
        "reason": verdict.reason,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "peak_x": None if peak is None else peak.x,
        "peak_y": None if peak is None else peak.y,
        "captured_at": datetime.fromisoformat(verdict.captured_at),
        "stored_at": row.stored_at,
        "wait_ms": latency.wait,
        "infer_ms": latency.infer,
        "total_ms": latency.total,
        "archive": verdict.archive,
    }
