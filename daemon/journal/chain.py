"""The rows of a journal, and the hash that links each to the one before it."""

import hashlib
import json
from typing import Final, NamedTuple

VERDICT: Final = "verdict"
"""Kind of the rows that are verdicts; all others tell what happened to the daemon or to the journal."""

CREATED: Final = "created"
RETENTION: Final = "retention"
UNJOURNALED: Final = "unjournaled"
CLOCK: Final = "clock"
POWER_CUT: Final = "power_cut"
START: Final = "start"
STOP: Final = "stop"

NOTHING: Final = bytes(32)
"""What the very first row holds instead of a hash."""

# A JSONEncoder would be set up again for each row.
_text: Final = json.encoder.encode_basestring_ascii


class Row(NamedTuple):
    """One row of the table ``journal``, in the order of its columns.

    ``boot``, ``seq``, ``camera`` and ``frame`` repeat the payload, so that SQL can search for them.
    """

    id: int
    kind: str
    boot: str | None
    seq: int | None
    camera: str | None
    frame: int | None
    written_at: str
    """ISO 8601, UTC, with microseconds."""
    payload: bytes
    """JSON in UTF-8; of a verdict exactly the bytes that were published."""
    previous: bytes
    """SHA-256 of the row before it."""


def hash_of(row: Row) -> bytes:
    """Give the SHA-256 over all of a row: a JSON array of its columns, a line feed, and the payload.

    The array is ``[id,kind,boot,seq,camera,frame,written_at,previous in hexadecimal]`` without blanks, in
    ASCII. It holds no line feed, so two different rows never give the same bytes.

    Raises:
        TypeError: a column holds a value of the wrong type, so the row was altered.
    """
    number, kind, boot, seq, camera, frame, written_at, payload, previous = row
    head = (
        f"[{_json(number)},{_text(kind)},{_json(boot)},{_json(seq)},{_json(camera)},{_json(frame)},"
        f'{_text(written_at)},"{bytes.hex(previous)}"]'
    )
    return hashlib.sha256(head.encode() + b"\n" + payload).digest()


def _json(value: str | int | None) -> str:
    if value is None:
        return "null"
    return _text(value) if isinstance(value, str) else int.__repr__(value)


def compact_json(content: object) -> bytes:
    """Write an event's content as its payload; half characters, of paths that are no UTF-8, are escaped."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")
