# Only the standard library: the PC of a reject gate installs pyzmq and nothing else.
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from verdicts.checks import (
    SCHEMA,
    check_count,
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
    malformed,
    read_json,
)

Decision = Literal["pass", "reject", "fault"]
Reason = Literal["deadline", "overload", "camera", "engine", "journal", "golden", "shutdown"]

DECISIONS: Final[frozenset[Decision]] = frozenset(get_args(Decision))
_REASONS: Final = frozenset(get_args(Reason))


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


def decode_verdict(payload: bytes) -> Verdict:
    """Read a verdict that comes without its topic, as from the journal.

    Raises:
        MalformedMessage: for anything but a whole verdict of schema 1.
    """
    content = read_json(payload)
    asked = [key for key in _ASKED_KEYS if isinstance(content, dict) and key in content]
    values = check_object(content, (*_KEYS, *asked), "payload")
    for key in asked:
        if values[key] is None:
            raise malformed(key, None, "a value, or no such key")
    if values["peak"] is not None:
        values["peak"] = Peak(**check_object(values["peak"], _PEAK_KEYS, "peak"))
    values["latency_ms"] = Latency(**check_object(values["latency_ms"], _LATENCY_KEYS, "latency_ms"))
    verdict = Verdict(**values)
    check_verdict(verdict)
    return verdict


def verdict_json(verdict: Verdict) -> str:
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


def check_verdict(verdict: Verdict) -> None:
    """Refuse values that are not of schema 1 with ``MalformedMessage``."""
    check_schema(verdict.schema)
    check_name("line", verdict.line)
    check_name("camera", verdict.camera)
    check_count("frame", verdict.frame)
    check_text("part", verdict.part, optional=True)
    check_hexadecimal("boot", verdict.boot)
    check_count("seq", verdict.seq, least=1)
    check_one_of("decision", verdict.decision, DECISIONS)
    fault = verdict.decision == "fault"
    if fault:
        check_one_of("reason", verdict.reason, _REASONS)
    elif verdict.reason is not None:
        raise malformed("reason", verdict.reason, f"null for a {verdict.decision}")
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
    if verdict.mask is not None:
        check_sha_256("mask", verdict.mask)


def _check_score_parts(parts: Mapping[str, float], score: float | None) -> None:
    if not isinstance(parts, Mapping):
        raise malformed("score_parts", parts, "an object")
    if score is None:
        raise malformed("score_parts", parts, "none without a score")
    for name, part in parts.items():
        check_text("score_parts", name)
        check_number(f"score_parts.{name}", part)


_ASKED_KEYS: Final = ("score_parts", "mask")
"""There only where the config asks for them."""
_KEYS: Final = tuple(key for key in keys_of(Verdict) if key not in _ASKED_KEYS)
_LATENCY_KEYS: Final = keys_of(Latency)
_PEAK_KEYS: Final = keys_of(Peak)
