import json
import math
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_process import STAMP, a_health, a_verdict

from verdicts import (
    CameraHealth,
    DriftHealth,
    GoldenHealth,
    Health,
    JournalHealth,
    Latency,
    MalformedMessage,
    Peak,
    SubscriberHealth,
    Verdict,
    decode,
    encode,
)
from verdicts.checks import MAX_BYTES, NAME

names = st.from_regex(NAME, fullmatch=True)
counts = st.integers(0, 2**53 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=40)
boots = st.text("0123456789abcdef", min_size=1, max_size=64)
stamps = st.datetimes().map(lambda at: at.isoformat(timespec="microseconds") + "Z")
times = st.none() | numbers


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    fault = draw(st.booleans())
    return Verdict(
        line=draw(names),
        camera=draw(names),
        frame=draw(counts),
        part=draw(st.none() | texts),
        boot=draw(boots),
        seq=draw(st.integers(1, 2**53 - 1)),
        decision="fault" if fault else draw(st.sampled_from(["pass", "reject"])),
        reason=draw(st.sampled_from(["deadline", "overload", "camera", "engine", "journal", "shutdown"]))
        if fault
        else None,
        score=draw(times if fault else numbers),
        threshold=draw(numbers),
        peak=draw(st.none() | st.builds(Peak, x=counts, y=counts)),
        captured_at=draw(stamps),
        latency_ms=draw(
            st.builds(
                Latency, wait=times if fault else numbers, infer=times if fault else numbers, total=numbers
            )
        ),
        model=draw(texts),
        archive=draw(st.none() | texts),
        score_parts=None if fault else draw(st.none() | st.dictionaries(texts, numbers, max_size=4)),
        mask=draw(st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)),
    )


healths = st.builds(
    Health,
    line=names,
    boot=boots,
    seq=counts,
    state=st.sampled_from(["starting", "running", "degraded", "stopping", "failed"]),
    error=st.none() | texts,
    cameras=st.dictionaries(
        names,
        st.builds(
            CameraHealth,
            state=st.sampled_from(["opening", "running", "stalled", "failed", "ended"]),
            captured=counts,
            faults=counts,
            error=st.none() | texts,
        ),
        max_size=4,
    ),
    product=st.none() | names,
    engine=texts,
    journal=st.none()
    | st.builds(
        JournalHealth,
        state=st.sampled_from(["ok", "failed"]),
        entries=counts,
        head=st.text("0123456789abcdef", min_size=64, max_size=64),
        error=st.none() | texts,
    ),
    subscribers=st.dictionaries(
        names, st.builds(SubscriberHealth, present=st.booleans(), unacknowledged=counts), max_size=4
    ),
    dropped_messages=counts,
    verdicts=st.fixed_dictionaries({"pass": counts, "reject": counts, "fault": counts}),
    waiting=counts,
    uptime_s=numbers,
    sent_at=stamps,
)


@given(verdicts() | healths)
def test_what_is_encoded_is_decoded(message: Verdict | Health) -> None:
    assert decode(*encode(message)) == message


@given(verdicts() | healths)
def test_the_payload_is_what_the_standard_librarys_json_writes(message: Verdict | Health) -> None:
    _, payload = encode(message)
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    assert payload.decode() == json.dumps(json.loads(payload), **compact)  # type: ignore[arg-type]
    unasked = {
        key for key in ("golden", "drift", "score_parts", "mask") if getattr(message, key, None) is None
    }
    names = [entry.name for entry in fields(message) if entry.name not in unasked]
    assert list(json.loads(payload)) == names


def test_the_wire_form_of_schema_1() -> None:
    verdict = a_verdict(8, decision="reject", part="Flansch ü", archive="/srv/rejects/7.png")
    topic, payload = encode(verdict)
    assert topic == b"line3/top/reject"
    assert payload.decode() == (
        '{"schema":1,"line":"line3","camera":"top","frame":108,"part":"Flansch ü","boot":"aa","seq":8,'
        '"decision":"reject","reason":null,"score":0.5,"threshold":0.25,"peak":{"x":12,"y":34},'
        '"captured_at":"2026-01-31T12:00:00.123456Z","latency_ms":{"wait":1.5,"infer":20.25,"total":22.0},'
        '"model":"flange-xs","archive":"/srv/rejects/7.png"}'
    )
    topic, payload = encode(a_health(8))
    assert topic == b"line3/-/health"
    assert payload.decode() == (
        '{"schema":1,"line":"line3","boot":"aa","seq":8,"state":"running","error":null,'
        '"cameras":{"top":{"state":"running","captured":8,"faults":0,"error":null}},"product":null,'
        '"engine":"flange-xs 0123abcd","journal":null,"subscribers":{},"dropped_messages":0,'
        '"verdicts":{"pass":8,"reject":0,"fault":0},"waiting":0,'
        '"uptime_s":3725.5,"sent_at":"2026-01-31T12:00:00.123456Z"}'
    )


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.sampled_from([a_verdict(1), a_verdict(1, decision="fault"), a_health(1)]), st.data())
def test_a_changed_message_is_refused_or_means_what_it_says(
    message: Verdict | Health, data: st.DataObject
) -> None:
    topic, payload = encode(message)
    content = json.loads(payload)
    key = data.draw(st.sampled_from([*content, "extra"]))
    value = data.draw(JUNK)
    content[key] = value
    try:
        decoded = decode(topic, json.dumps(content).encode())
    except MalformedMessage:
        return
    assert json.loads(encode(decoded)[1])[key] == value


@given(st.binary(max_size=60), st.binary(max_size=200))
def test_garbage_is_malformed(topic: bytes, payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(topic, payload)


def changed(message: Verdict | Health, **changes: Any) -> bytes:
    content = json.loads(encode(message)[1]) | changes
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"[" * 50_000, "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON in UTF-8"),
        (b"[]", "expected an object"),
        (b" " * (MAX_BYTES + 1), "at most 65536"),
        (changed(a_verdict(1), schema=2), "schema: found 2, expected 1"),
        (changed(a_verdict(1), schema=True), "schema: found True"),
        (changed(a_verdict(1), schema=1.0), "schema: found 1.0"),
        (changed(a_verdict(1), peak=...), r"missing keys \['peak'\], unknown keys \[\]"),
        (changed(a_verdict(1), colour=1), r"unknown keys \['colour'\]"),
        (changed(a_verdict(1), line="line3\n"), "line: found 'line3"),
        (changed(a_verdict(1), camera="-"), "camera: found '-'"),
        (changed(a_verdict(1), frame=1.0), "frame: found 1.0"),
        (changed(a_verdict(1), frame=True), "frame: found True"),
        (changed(a_verdict(1), seq=0), "seq: found 0, expected a whole number from 1"),
        (changed(a_verdict(1), seq=2**53), "seq: found"),
        (changed(a_verdict(1), boot="x1"), "boot: found 'x1'"),
        (changed(a_verdict(1), decision="maybe"), "expected one of fault, pass, reject"),
        (changed(a_verdict(1), decision=["pass"]), "decision: found"),
        (changed(a_verdict(1), reason="deadline"), "reason: found 'deadline', expected null for a pass"),
        (changed(a_verdict(1, decision="fault"), reason=None), "reason: found None"),
        (changed(a_verdict(1), score=None), "score: found None, expected a finite number"),
        (changed(a_verdict(1), score=math.nan), "found NaN"),
        (changed(a_verdict(1), score=10**400), "score: found 1000"),
        (changed(a_verdict(1)).replace(b"0.25", b"1e999"), "threshold: found inf"),
        (changed(a_verdict(1)).replace(b'"seq"', b'"frame"'), "a key is given twice"),
        (changed(a_verdict(1), peak={"x": 1}), r"peak: missing keys \['y'\]"),
        (changed(a_verdict(1), peak=[1, 2]), "peak: found"),
        (changed(a_verdict(1), latency_ms=None), "latency_ms: found None"),
        (changed(a_verdict(1), captured_at="2026-02-30T12:00:00.000000Z"), "captured_at"),
        (changed(a_verdict(1), captured_at="2026-01-31T12:00:00.000000+01:00"), "expected a time in UTC"),
        (changed(a_verdict(1), part="\ud800"), "UTF-8"),
        (changed(a_verdict(1), mask=None), "mask: found None, expected a value, or no such key"),
        (changed(a_verdict(1), mask="A" * 64), "mask: found 'AAA"),
        (changed(a_verdict(1), camera="side"), "topic: found b'line3/top/pass', expected b'line3/side/pass'"),
    ],
)
def test_what_is_wrong_with_a_verdict_is_said(payload: bytes, complaint: str) -> None:
    with pytest.raises(MalformedMessage, match=complaint):
        decode(b"line3/top/pass" if b'"fault"' not in payload else b"line3/top/fault", payload)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (changed(a_health(1), state="fine"), "state: found 'fine'"),
        (changed(a_health(1), seq=-1), "seq: found -1"),
        (changed(a_health(1), verdicts={"pass": 1}), "expected the keys fault, pass, reject"),
        (changed(a_health(1), verdicts={"pass": 1, "reject": 0, "fault": "0"}), "verdicts.fault: found '0'"),
        (changed(a_health(1), cameras=[]), "cameras: found"),
        (changed(a_health(1), cameras={"top": {"state": "running"}}), "cameras.top: missing keys"),
        (changed(a_health(1), uptime_s="1"), "uptime_s: found '1'"),
        (changed(a_health(1), line="line4"), "topic: found"),
    ],
)
def test_what_is_wrong_with_a_health_is_said(payload: bytes, complaint: str) -> None:
    with pytest.raises(MalformedMessage, match=complaint):
        decode(b"line3/-/health", payload)


@pytest.mark.parametrize(
    "message",
    [
        a_verdict(1, score=math.inf),
        a_verdict(1, score=np.float32(0.5)),
        a_verdict(1, camera="top/side"),
        a_verdict(1, archive="/srv/\udcff.png"),
        a_verdict(1, archive="x" * MAX_BYTES),
        a_verdict(1, decision="pass", reason="engine"),
        replace(a_verdict(1), schema=2),
        a_health(1, cameras={"-": CameraHealth("running", 0, 0, None)}),
        a_health(1, verdicts={"pass": 1}),
    ],
)
def test_what_would_be_refused_is_never_sent(message: Verdict | Health) -> None:
    with pytest.raises(MalformedMessage):
        encode(message)


def test_a_gate_needs_pyzmq_and_nothing_else() -> None:
    """The PC of a reject gate has none of the daemon's other dependencies."""
    program = (
        "import sys, verdicts\n"
        "ours = {'daemon', 'engine_runtime', 'engine_build', 'calibration', 'efficientad'}\n"
        "heavy = {'numpy', 'cv2', 'pydantic', 'yaml', 'openvino', 'onnxruntime', 'torch'}\n"
        "print(*(ours | heavy) & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_a_line_watches_is_in_its_health_only_where_the_config_asks_for_it() -> None:
    golden = GoldenHealth("failed", STAMP, 3, 1, True, "dent.png: expected reject, found pass")
    drift = {"top": DriftHealth(99, "lamp", 7, "15% darker", "clean it"), "side": DriftHealth(9, *[None] * 4)}
    health = a_health(8, golden=golden, drift=drift)
    assert decode(*encode(health)) == health
    assert {"golden", "drift"}.isdisjoint(json.loads(encode(a_health(8))[1]))
    for wrong in (
        {"golden": replace(golden, state="odd")},
        {"drift": {"top": replace(drift["top"], cause="x")}},
    ):
        with pytest.raises(MalformedMessage, match="expected one of"):
            encode(a_health(8, **wrong))
    content = json.loads(encode(health)[1])
    for key in ("golden", "drift"):
        with pytest.raises(MalformedMessage, match=key):
            decode(b"line3/-/health", json.dumps(content | {key: None}).encode())
