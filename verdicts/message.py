# Only the standard library: the PC of a reject gate installs pyzmq and nothing else.
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Literal, NoReturn, get_args

Decision = Literal["pass", "reject", "fault"]
Reason = Literal["deadline", "overload", "camera", "engine", "journal", "golden", "shutdown"]
LineState = Literal["starting", "running", "degraded", "stopping", "failed"]
CameraState = Literal["opening", "running", "stalled", "failed", "ended"]
JournalState = Literal["ok", "failed"]
DriftCause = Literal["lamp", "focus", "position", "dirt", "parts"]
GoldenState = Literal["untested", "passed", "failed", "overdue"]

SCHEMA: Final = 1
MAX_BYTES: Final = 64 * 1024
"""The longest payload that is sent or believed."""

NAME: Final = re.compile(r"(?!-\Z)[A-Za-z0-9_.-]{1,64}")
"""Names of lines and cameras, for ``fullmatch``: they go into topics, where "-" means no camera."""

HEALTH_INTERVAL_S: Final = 1.0
"""How often a daemon says that it lives."""

_DECISIONS: Final = frozenset(get_args(Decision))
_REASONS: Final = frozenset(get_args(Reason))
_LINE_STATES: Final = frozenset(get_args(LineState))
_CAMERA_STATES: Final = frozenset(get_args(CameraState))
_JOURNAL_STATES: Final = frozenset(get_args(JournalState))
_DRIFT_CAUSES: Final = frozenset(get_args(DriftCause))
_GOLDEN_STATES: Final = frozenset(get_args(GoldenState))
_SHA_256: Final = re.compile(r"[0-9a-f]{64}")
_BOOT: Final = re.compile(r"[0-9a-f]{1,64}")
_STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)", re.ASCII)
_LARGEST: Final = 2**53 - 1  # beyond it JavaScript and most JSON readers round


class MalformedMessage(ValueError):
    """The bytes or values are not a message of schema 1; the text names the key, found and expected."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Where the time of one frame went, in milliseconds.

    Attributes:
        wait: from the capture until a lane took the frame; None for a fault that no lane took.
        infer: from there until its score was known; None for a fault that was not scored.
        total: from the capture until the verdict was given.
    """

    wait: float | None
    infer: float | None
    total: float


@dataclass(frozen=True, slots=True)
class Peak:
    """Where the anomaly map is highest, in pixels of the camera's whole picture."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one captured frame.

    Attributes:
        line: name of the line.
        camera: name of the camera.
        frame: number of the frame, counted by the camera's process without gaps.
        part: the part's name where the camera or PLC knows it.
        boot: random hexadecimal digits, new at every start of the daemon.
        seq: counts all verdicts of one boot from 1 without gaps.
        decision: "pass", "reject" or "fault"; treat a fault as a reject.
        reason: why it is a fault; None for a pass or reject.
        score: anomaly score; None only for a fault.
        threshold: the score above which a part is rejected.
        peak: the most anomalous point; None where there is no score.
        captured_at: ISO 8601, UTC, with microseconds.
        latency_ms: where the time went.
        model: name of the model that judged.
        archive: path of the archived picture on the daemon's machine.
        score_parts: name of each anomaly map to what it has in the score where the score was taken, whose
            mean is the score; None, and no key on the wire, where the config does not ask for it or there is
            no score.
        mask: SHA-256 of the mask under which the frame is judged; None, and no key on the wire, without one.
    """

    schema: int = field(default=SCHEMA, kw_only=True)
    line: str
    camera: str
    frame: int
    part: str | None
    boot: str
    seq: int
    decision: Decision
    reason: Reason | None
    score: float | None
    threshold: float
    peak: Peak | None
    captured_at: str
    latency_ms: Latency
    model: str
    archive: str | None
    score_parts: Mapping[str, float] | None = None
    mask: str | None = None


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


def encode(message: Verdict | Health) -> tuple[bytes, bytes]:
    """Make the two parts of a ZeroMQ message: the topic, and compact JSON in UTF-8.

    Raises:
        MalformedMessage: a value has the wrong type or range, or the payload would exceed ``MAX_BYTES``;
            what ``decode`` would refuse is never sent.
    """
    if isinstance(message, Verdict):
        _check_verdict(message)
        payload = _verdict_json(message).encode()
    else:
        _check_health(message)
        payload = _health_json(message).encode()
    if len(payload) > MAX_BYTES:
        raise MalformedMessage(f"payload: found {len(payload)} bytes, expected at most {MAX_BYTES}")
    return _topic(message), payload


def _verdict_json(verdict: Verdict) -> str:
    """Write a checked verdict; a line gives thousands per second, and ``json`` would take longer."""
    peak, latency = verdict.peak, verdict.latency_ms
    mask_json = "" if verdict.mask is None else f',"mask":"{verdict.mask}"'
    peak_json = "null" if peak is None else f'{{"x":{peak.x},"y":{peak.y}}}'
    return (
        f'{{"schema":{verdict.schema},"line":"{verdict.line}","camera":"{verdict.camera}",'
        f'"frame":{verdict.frame},"part":{_text_json(verdict.part)},"boot":"{verdict.boot}",'
        f'"seq":{verdict.seq},"decision":"{verdict.decision}","reason":{_text_json(verdict.reason)},'
        f'"score":{_number_json(verdict.score)},"threshold":{_number_json(verdict.threshold)},'
        f'"peak":{peak_json},"captured_at":"{verdict.captured_at}","latency_ms":{{'
        f'"wait":{_number_json(latency.wait)},"infer":{_number_json(latency.infer)},'
        f'"total":{_number_json(latency.total)}}},"model":{_text_json(verdict.model)},'
        f'"archive":{_text_json(verdict.archive)}{_score_parts_json(verdict.score_parts)}{mask_json}}}'
    )


def _score_parts_json(parts: Mapping[str, float] | None) -> str:
    if parts is None:
        return ""
    entries = ",".join(f"{_text_json(name)}:{_number_json(part)}" for name, part in parts.items())
    return f',"score_parts":{{{entries}}}'


def _text_json(text: str | None) -> str:
    return "null" if text is None else json.encoder.encode_basestring(text)


def _number_json(number: float | None) -> str:
    if number is None:
        return "null"
    return float.__repr__(number) if isinstance(number, float) else int.__repr__(number)


def _health_json(health: Health) -> str:
    content = {key: getattr(health, key) for key in _HEALTH_KEYS}
    content["verdicts"] = dict(health.verdicts)
    content["cameras"] = {
        name: {key: getattr(camera, key) for key in _CAMERA_KEYS} for name, camera in health.cameras.items()
    }
    content["journal"] = None if health.journal is None else asdict(health.journal)
    content["subscribers"] = {name: asdict(entry) for name, entry in health.subscribers.items()}
    if health.golden is not None:
        content["golden"] = asdict(health.golden)
    if health.drift is not None:
        content["drift"] = {name: asdict(entry) for name, entry in health.drift.items()}
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode(topic: bytes, payload: bytes) -> Verdict | Health:
    """Read the two parts of a ZeroMQ message, believing nothing.

    Raises:
        MalformedMessage: for anything but a whole message of schema 1 under its own topic.
    """
    message = decode_health(payload) if topic.endswith(b"/-/health") else decode_verdict(payload)
    if topic != _topic(message):
        raise MalformedMessage(f"topic: found {_show(topic)}, expected {_show(_topic(message))}")
    return message


def decode_verdict(payload: bytes) -> Verdict:
    """Read a verdict that comes without its topic, as from the journal.

    Raises:
        MalformedMessage: for anything but a whole verdict of schema 1.
    """
    return _verdict(read_json(payload))


def decode_health(payload: bytes) -> Health:
    """Read a health that comes without its topic.

    Raises:
        MalformedMessage: for anything but a whole health of schema 1.
    """
    return _health(read_json(payload))


def read_json(payload: bytes) -> object:
    """Read JSON of schema 1 that came from anybody; a ``MalformedMessage`` is raised for anything else."""
    if len(payload) > MAX_BYTES:
        raise MalformedMessage(f"payload: found {len(payload)} bytes, expected at most {MAX_BYTES}")
    try:
        content: object = json.loads(payload.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, MalformedMessage):
            raise
        raise MalformedMessage(f"payload: not JSON in UTF-8: {error}") from error
    if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
        raise MalformedMessage(f"schema: found {_show(content['schema'])}, expected {SCHEMA}")
    return content


def _topic(message: Verdict | Health) -> bytes:
    if isinstance(message, Verdict):
        return f"{message.line}/{message.camera}/{message.decision}".encode()
    return f"{message.line}/-/health".encode()


def _verdict(content: object) -> Verdict:
    asked = [key for key in _ASKED_OF_VERDICTS if isinstance(content, dict) and key in content]
    values = check_object(content, (*_VERDICT_KEYS, *asked), "payload")
    for key in asked:
        if values[key] is None:
            raise _wrong(key, None, "a value, or no such key")
    if values["peak"] is not None:
        values["peak"] = Peak(**check_object(values["peak"], _PEAK_KEYS, "peak"))
    values["latency_ms"] = Latency(**check_object(values["latency_ms"], _LATENCY_KEYS, "latency_ms"))
    verdict = Verdict(**values)
    _check_verdict(verdict)
    return verdict


def _health(content: object) -> Health:
    asked = tuple(key for key in _ASKED_KEYS if isinstance(content, dict) and key in content)
    values = check_object(content, (*_HEALTH_KEYS, *asked), "payload")
    if "golden" in asked:
        values["golden"] = GoldenHealth(**check_object(values["golden"], _GOLDEN_KEYS, "golden"))
    if "drift" in asked:
        if not isinstance(values["drift"], dict):
            raise _wrong("drift", values["drift"], "an object")
        values["drift"] = {
            name: DriftHealth(**check_object(entry, _DRIFT_KEYS, f"drift.{name}"))
            for name, entry in values["drift"].items()
        }
    if not isinstance(values["cameras"], dict):
        raise _wrong("cameras", values["cameras"], "an object")
    values["cameras"] = {
        name: CameraHealth(**check_object(camera, _CAMERA_KEYS, f"cameras.{name}"))
        for name, camera in values["cameras"].items()
    }
    if values["journal"] is not None:
        values["journal"] = JournalHealth(**check_object(values["journal"], _JOURNAL_KEYS, "journal"))
    if not isinstance(values["subscribers"], dict):
        raise _wrong("subscribers", values["subscribers"], "an object")
    values["subscribers"] = {
        name: SubscriberHealth(**check_object(subscriber, _SUBSCRIBER_KEYS, f"subscribers.{name}"))
        for name, subscriber in values["subscribers"].items()
    }
    health = Health(**values)
    _check_health(health)
    return health


def _check_verdict(verdict: Verdict) -> None:
    if type(verdict.schema) is not int or verdict.schema != SCHEMA:
        raise _wrong("schema", verdict.schema, f"{SCHEMA}")
    check_name("line", verdict.line)
    check_name("camera", verdict.camera)
    check_count("frame", verdict.frame)
    check_text("part", verdict.part, optional=True)
    check_boot(verdict.boot)
    check_count("seq", verdict.seq, least=1)
    check_one_of("decision", verdict.decision, _DECISIONS)
    fault = verdict.decision == "fault"
    if fault:
        check_one_of("reason", verdict.reason, _REASONS)
    elif verdict.reason is not None:
        raise _wrong("reason", verdict.reason, f"null for a {verdict.decision}")
    check_number("score", verdict.score, optional=fault)
    check_number("threshold", verdict.threshold)
    if verdict.peak is not None:
        check_count("peak.x", verdict.peak.x)
        check_count("peak.y", verdict.peak.y)
    check_stamp("captured_at", verdict.captured_at)
    check_number("latency_ms.wait", verdict.latency_ms.wait, optional=fault)
    check_number("latency_ms.infer", verdict.latency_ms.infer, optional=fault)
    check_number("latency_ms.total", verdict.latency_ms.total)
    check_text("model", verdict.model)
    check_text("archive", verdict.archive, optional=True)
    if verdict.score_parts is not None:
        _check_score_parts(verdict.score_parts, verdict.score)
    if verdict.mask is not None and not (isinstance(verdict.mask, str) and _SHA_256.fullmatch(verdict.mask)):
        raise _wrong("mask", verdict.mask, "a SHA-256 in 64 hexadecimal digits")


def _check_score_parts(parts: Mapping[str, float], score: float | None) -> None:
    if not isinstance(parts, Mapping):
        raise _wrong("score_parts", parts, "an object")
    if score is None:
        raise _wrong("score_parts", parts, "none without a score")
    for name, part in parts.items():
        check_text("score_parts", name)
        check_number(f"score_parts.{name}", part)


def _check_health(health: Health) -> None:
    if type(health.schema) is not int or health.schema != SCHEMA:
        raise _wrong("schema", health.schema, f"{SCHEMA}")
    check_name("line", health.line)
    check_boot(health.boot)
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
        if not isinstance(health.journal.head, str) or not _SHA_256.fullmatch(health.journal.head):
            raise _wrong("journal.head", health.journal.head, "a SHA-256 in 64 hexadecimal digits")
        check_text("journal.error", health.journal.error, optional=True)
    for name, subscriber in health.subscribers.items():
        check_name("subscribers", name)
        if not isinstance(subscriber.present, bool):
            raise _wrong(f"subscribers.{name}.present", subscriber.present, "true or false")
        check_count(f"subscribers.{name}.unacknowledged", subscriber.unacknowledged)
    check_count("dropped_messages", health.dropped_messages)
    if not isinstance(health.verdicts, Mapping) or set(health.verdicts) != _DECISIONS:
        raise _wrong("verdicts", health.verdicts, f"the keys {_listed(_DECISIONS)}")
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
    if not isinstance(golden.withheld, bool):
        raise _wrong("golden.withheld", golden.withheld, "true or false")
    check_text("golden.error", golden.error, optional=True)


def check_object(content: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    """Give an object that has exactly these keys. This and the checks below raise ``MalformedMessage``."""
    if not isinstance(content, dict):
        raise _wrong(where, content, "an object")
    if content.keys() != set(keys):
        missing, unknown = sorted(set(keys) - content.keys()), sorted(content.keys() - set(keys))
        raise MalformedMessage(f"{where}: missing keys {_show(missing)}, unknown keys {_show(unknown)}")
    return content


def check_name(key: str, value: object) -> None:
    """Refuse what is not the name of a line, a camera or a subscriber."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise _wrong(key, value, 'a name of 1 to 64 letters, digits, "_", "." or "-"')


def check_boot(value: object) -> None:
    """Refuse what does not name a start of a daemon."""
    if not isinstance(value, str) or not _BOOT.fullmatch(value):
        raise _wrong("boot", value, "1 to 64 hexadecimal digits")


def check_text(key: str, value: object, optional: bool = False) -> None:
    """Refuse what is not text that UTF-8 can carry."""
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise _wrong(key, value, "text or null" if optional else "text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise _wrong(key, value, "text that UTF-8 can carry")  # Python's stand-ins for undecodable bytes


def check_count(key: str, value: object, least: int = 0) -> None:
    """Refuse what is not a whole number that every reader of JSON keeps as it is."""
    if type(value) is not int or not least <= value <= _LARGEST:
        raise _wrong(key, value, f"a whole number from {least} to 2^53 - 1")


def check_number(key: str, value: object, optional: bool = False) -> None:
    """Refuse what is not a finite number."""
    if value is None and optional:
        return
    if isinstance(value, float):
        if math.isfinite(value):
            return
    elif type(value) is int and abs(value) <= _LARGEST:
        return
    raise _wrong(key, value, "a finite number or null" if optional else "a finite number")


def check_one_of(key: str, value: object, allowed: frozenset[str]) -> None:
    """Refuse what is not one of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise _wrong(key, value, f"one of {_listed(allowed)}")


def check_stamp(key: str, value: object) -> None:
    """Refuse what is not a time in UTC as the daemon writes it."""
    if isinstance(value, str) and _STAMP.fullmatch(value):
        try:
            datetime.fromisoformat(value)
            return
        except ValueError:
            pass  # such as a 30th of February
    raise _wrong(key, value, "a time in UTC such as 2026-01-31T12:00:00.000000Z")


def _wrong(key: str, found: object, expected: str) -> MalformedMessage:
    return MalformedMessage(f"{key}: found {_show(found)}, expected {expected}")


def _show(value: object) -> str:
    try:
        shown = repr(value)
    except RecursionError:  # it was just shallow enough to be read
        return "something nested too deeply"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _no_constant(constant: str) -> NoReturn:
    raise MalformedMessage(f"payload: found {constant}, expected finite numbers")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise MalformedMessage("payload: a key is given twice")
    return content


def keys_of(kind: type[Any]) -> tuple[str, ...]:
    """Name the fields of a message, which are its keys on the wire."""
    return tuple(entry.name for entry in fields(kind))


_ASKED_OF_VERDICTS: Final = ("score_parts", "mask")
"""There only where the config asks for them."""
_VERDICT_KEYS: Final = tuple(key for key in keys_of(Verdict) if key not in _ASKED_OF_VERDICTS)
_ASKED_KEYS: Final = ("golden", "drift")
"""Of health: there only where the config asks for them."""
_HEALTH_KEYS: Final = tuple(key for key in keys_of(Health) if key not in _ASKED_KEYS)
_DRIFT_KEYS: Final = keys_of(DriftHealth)
_GOLDEN_KEYS: Final = keys_of(GoldenHealth)
_CAMERA_KEYS: Final = keys_of(CameraHealth)
_JOURNAL_KEYS: Final = keys_of(JournalHealth)
_SUBSCRIBER_KEYS: Final = keys_of(SubscriberHealth)
_LATENCY_KEYS: Final = keys_of(Latency)
_PEAK_KEYS: Final = keys_of(Peak)
