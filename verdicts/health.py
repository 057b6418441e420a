# Only the standard library: the PC of a reject gate installs pyzmq and nothing else.
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, TypeVar, get_args

from verdicts.checks import (
    SCHEMA,
    check_count,
    check_flag,
    check_hexadecimal,
    check_name,
    check_number,
    check_object,
    check_one_of,
    check_schema,
    check_sha_256,
    check_stamp,
    check_text,
    keys_of,
    listed,
    malformed,
    read_json,
)
from verdicts.verdict import DECISIONS, Decision

LineState = Literal["starting", "running", "degraded", "stopping", "failed"]
CameraState = Literal["opening", "running", "stalled", "failed", "ended"]
JournalState = Literal["ok", "failed"]
DriftCause = Literal["lamp", "focus", "position", "dirt", "parts"]
GoldenState = Literal["untested", "passed", "failed", "overdue"]

HEALTH_INTERVAL_S: Final = 1.0
"""How often a daemon says that it lives."""

_LINE_STATES: Final = frozenset(get_args(LineState))
_CAMERA_STATES: Final = frozenset(get_args(CameraState))
_JOURNAL_STATES: Final = frozenset(get_args(JournalState))
_DRIFT_CAUSES: Final = frozenset(get_args(DriftCause))
_GOLDEN_STATES: Final = frozenset(get_args(GoldenState))


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """How one camera fares.

    Attributes:
        state: what it is doing.
        captured: frames since the daemon's start.
        faults: fault verdicts on its frames since the daemon's start.
        error: one line about its last trouble; None when there was none.
    """

    state: CameraState
    captured: int
    faults: int
    error: str | None


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """How the journal fares.

    Attributes:
        state: "failed" while verdicts cannot be written to it.
        entries: rows it holds.
        head: SHA-256 of its newest row, 64 hexadecimal digits; kept elsewhere, it proves later that nothing
            before it was altered or cut off.
        error: one line about its trouble; None while there is none.
    """

    state: JournalState
    entries: int
    head: str
    error: str | None


@dataclass(frozen=True, slots=True)
class SubscriberHealth:
    """How one subscriber that acknowledges fares.

    Attributes:
        present: whether it was heard lately.
        unacknowledged: verdicts in the journal that it has not acknowledged.
    """

    present: bool
    unacknowledged: int


@dataclass(frozen=True, slots=True)
class GoldenHealth:
    """What the golden samples of the product say, which is whether the line still sees what it saw.

    Attributes:
        state: of the last run; "overdue" when parts left no pause for it.
        tested_at: when it ended, ISO 8601, UTC; None before the first.
        samples: how many there are.
        failed: how many of them got another verdict, or a score that moved too far.
        withheld: whether parts are faults with the reason "golden" until all pass again.
        error: one line with the numbers of the first that failed; None while none did.
    """

    state: GoldenState
    tested_at: str | None
    samples: int
    failed: int
    withheld: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class DriftHealth:
    """Whether the parts at a camera still look as they did when the line was calibrated.

    Attributes:
        parts: that were looked at.
        cause: "lamp", "focus", "position", "dirt" or "parts" (the parts have changed); None while all is as
            it was, and then so are the others.
        since_frame: number of the frame with which it began, as far as that shows.
        amount: by how much, in words.
        do: what to do, in words.
    """

    parts: int
    cause: DriftCause | None
    since_frame: int | None
    amount: str | None
    do: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """The sign of life that the daemon sends every second, whether parts pass or not.

    Attributes:
        line: name of the line.
        boot: the same as in the verdicts of this start of the daemon.
        seq: the ``seq`` of the last verdict published; 0 before the first.
        state: "degraded" while a camera, lane, the journal, a golden sample, a server that judges or a
            required subscriber is out of order; "stopping" is the last word of a boot, "failed" that of one
            that had to give the line up.
        error: one line about the line's own trouble, or that of servers that judge for it; None while there
            is none.
        cameras: name of the camera to its health.
        product: the product that is judged; None when the config names none.
        engine: name of the model and the start of its SHA-256.
        journal: how the journal fares; None without one.
        subscribers: name of each subscriber that acknowledges, or should, to its health.
        dropped_messages: requests that were malformed, too long or unauthorised, since the daemon's start.
        verdicts: how many of each decision since the daemon's start; all three keys.
        waiting: captured frames that have no verdict yet.
        uptime_s: seconds since the daemon's start.
        sent_at: ISO 8601, UTC, with microseconds.
        golden: what golden samples say; None, and no key on the wire, where the config asks for none.
        drift: name of the camera to what has changed there; likewise.
    """

    schema: int = field(default=SCHEMA, kw_only=True)
    line: str
    boot: str
    seq: int
    state: LineState
    error: str | None
    cameras: Mapping[str, CameraHealth]
    product: str | None
    engine: str
    journal: JournalHealth | None
    subscribers: Mapping[str, SubscriberHealth]
    dropped_messages: int
    verdicts: Mapping[Decision, int]
    waiting: int
    uptime_s: float
    sent_at: str
    golden: GoldenHealth | None = None
    drift: Mapping[str, DriftHealth] | None = None


def decode_health(payload: bytes) -> Health:
    """Read a health that comes without its topic.

    Raises:
        MalformedMessage: for anything but a whole health of schema 1.
    """
    content = read_json(payload)
    asked = tuple(key for key in _ASKED_KEYS if isinstance(content, dict) and key in content)
    values = check_object(content, (*_HEALTH_KEYS, *asked), "payload")
    if "golden" in asked:
        values["golden"] = _one(GoldenHealth, values["golden"], "golden")
    if "drift" in asked:
        values["drift"] = _each(DriftHealth, values["drift"], "drift")
    values["cameras"] = _each(CameraHealth, values["cameras"], "cameras")
    if values["journal"] is not None:
        values["journal"] = _one(JournalHealth, values["journal"], "journal")
    values["subscribers"] = _each(SubscriberHealth, values["subscribers"], "subscribers")
    health = Health(**values)
    check_health(health)
    return health


_Part = TypeVar("_Part", CameraHealth, JournalHealth, SubscriberHealth, GoldenHealth, DriftHealth)


def _one(kind: type[_Part], content: object, where: str) -> _Part:
    return kind(**check_object(content, keys_of(kind), where))


def _each(kind: type[_Part], content: object, where: str) -> dict[str, _Part]:
    if not isinstance(content, dict):
        raise malformed(where, content, "an object")
    return {name: _one(kind, entry, f"{where}.{name}") for name, entry in content.items()}


def health_json(health: Health) -> str:
    """Write a checked health."""
    content = {key: getattr(health, key) for key in _HEALTH_KEYS}
    content["verdicts"] = dict(health.verdicts)
    content["cameras"] = {name: asdict(camera) for name, camera in health.cameras.items()}
    content["journal"] = None if health.journal is None else asdict(health.journal)
    content["subscribers"] = {name: asdict(entry) for name, entry in health.subscribers.items()}
    if health.golden is not None:
        content["golden"] = asdict(health.golden)
    if health.drift is not None:
        content["drift"] = {name: asdict(entry) for name, entry in health.drift.items()}
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def check_health(health: Health) -> None:
    """Refuse values that are not of schema 1 with ``MalformedMessage``."""
    check_schema(health.schema)
    check_name("line", health.line)
    check_hexadecimal("boot", health.boot)
    check_count("seq", health.seq)
    check_one_of("state", health.state, _LINE_STATES)
    check_text("error", health.error, optional=True)
    for name, camera in health.cameras.items():
        check_name("cameras", name)
        check_one_of(f"cameras.{name}.state", camera.state, _CAMERA_STATES)
        check_count(f"cameras.{name}.captured", camera.captured)
        check_count(f"cameras.{name}.faults", camera.faults)
        check_text(f"cameras.{name}.error", camera.error, optional=True)
    if health.product is not None:
        check_name("product", health.product)
    check_text("engine", health.engine)
    if health.journal is not None:
        check_one_of("journal.state", health.journal.state, _JOURNAL_STATES)
        check_count("journal.entries", health.journal.entries)
        check_sha_256("journal.head", health.journal.head)
        check_text("journal.error", health.journal.error, optional=True)
    for name, subscriber in health.subscribers.items():
        check_name("subscribers", name)
        check_flag(f"subscribers.{name}.present", subscriber.present)
        check_count(f"subscribers.{name}.unacknowledged", subscriber.unacknowledged)
    check_count("dropped_messages", health.dropped_messages)
    if not isinstance(health.verdicts, Mapping) or set(health.verdicts) != DECISIONS:
        raise malformed("verdicts", health.verdicts, f"the keys {listed(DECISIONS)}")
    for decision, count in health.verdicts.items():
        check_count(f"verdicts.{decision}", count)
    check_count("waiting", health.waiting)
    check_number("uptime_s", health.uptime_s)
    check_stamp("sent_at", health.sent_at)
    if health.golden is not None:
        _check_golden(health.golden)
    for name, entry in (health.drift or {}).items():
        check_name("drift", name)
        _check_drift(f"drift.{name}", entry)


def _check_drift(key: str, drift: DriftHealth) -> None:
    check_count(f"{key}.parts", drift.parts)
    if drift.cause is not None:
        check_one_of(f"{key}.cause", drift.cause, _DRIFT_CAUSES)
    if drift.since_frame is not None:
        check_count(f"{key}.since_frame", drift.since_frame)
    check_text(f"{key}.amount", drift.amount, optional=True)
    check_text(f"{key}.do", drift.do, optional=True)


def _check_golden(golden: GoldenHealth) -> None:
    check_one_of("golden.state", golden.state, _GOLDEN_STATES)
    if golden.tested_at is not None:
        check_stamp("golden.tested_at", golden.tested_at)
    check_count("golden.samples", golden.samples)
    check_count("golden.failed", golden.failed)
    check_flag("golden.withheld", golden.withheld)
    check_text("golden.error", golden.error, optional=True)


_ASKED_KEYS: Final = ("golden", "drift")
"""There only where the config asks for them."""
_HEALTH_KEYS: Final = tuple(key for key in keys_of(Health) if key not in _ASKED_KEYS)
