"""Sound messages and requests, from which mutation begins."""

from verdicts.health import CameraHealth, Health, JournalHealth, SubscriberHealth
from verdicts.request import (
    LARGEST,
    Acknowledge,
    Reload,
    Replay,
    ReplaySince,
    Request,
    Select,
    Status,
    Trigger,
)
from verdicts.verdict import Latency, Peak, Verdict

STAMP = "2026-01-31T12:00:00.123456Z"

VERDICT = Verdict(
    line="line3",
    camera="top",
    frame=101,
    part="flange",
    boot="aa",
    seq=1,
    decision="pass",
    reason=None,
    score=0.5,
    threshold=0.75,
    peak=Peak(12, 34),
    captured_at=STAMP,
    latency_ms=Latency(1.5, 20.25, 22.0),
    model="flange-xs",
    archive=None,
    score_parts={"local": 0.75, "global": 0.25},
)

HEALTH = Health(
    line="line3",
    boot="aa",
    seq=7,
    state="degraded",
    error="lane 0 hangs",
    cameras={"top": CameraHealth("running", 7, 0, None), "side": CameraHealth("failed", 0, 1, "unplugged")},
    product="flange",
    engine="flange-xs 0123456789ab",
    journal=JournalHealth("ok", 9, "0a" * 32, None),
    subscribers={"gate": SubscriberHealth(True, 3)},
    dropped_messages=5,
    verdicts={"pass": 5, "reject": 1, "fault": 1},
    waiting=2,
    uptime_s=3725.5,
    sent_at=STAMP,
)

REQUESTS: tuple[Request, ...] = (
    Status(1),
    Replay(2, "aa", 1, LARGEST),
    Replay(3, "bb", 5, 9),
    ReplaySince(4, STAMP, 0),
    ReplaySince(5, "9999-12-31T23:59:59.999999Z", LARGEST),
    Acknowledge(6, "gate", "c1", True, None),
    Acknowledge(7, "gate", "c1", False, 3),
    Acknowledge(8, "plc", "d2", True, LARGEST),
    Reload(9),
    Select(10, "flange"),
    Trigger(11, "top", "4711"),
)
