"""When a line that runs is in order, and when it is degraded."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.health import health_of
from verdicts import CameraHealth, DriftHealth, GoldenHealth, JournalHealth, SubscriberHealth, encode

TOP = CameraHealth("running", 7, 1, None)
JOURNAL = JournalHealth("ok", 9, "0" * 64, None)


def state(**changes: Any) -> str:
    product: Any = SimpleNamespace(name=None, engine_name="flange 0123")
    line: dict[str, Any] = {
        "line": "line3",
        "boot": "aa",
        "phase": "running",
        "given_up": None,
        "cameras": {"top": TOP},
        "product": product,
        "lanes_failing": False,
        "servers": None,
        "golden": None,
        "drift": None,
        "journal": JOURNAL,
        "decisions": {"pass": 6, "fault": 1},
        "dropped_messages": 0,
        "subscribers": {},
        "required_subscribers": (),
        "seq": 7,
        "waiting": 0,
        "uptime_s": 1.23456,
        "now": datetime(2026, 1, 31, 12, tzinfo=UTC),
    }
    health = health_of(**line | changes)
    assert encode(health), "it can be sent"
    assert health.verdicts == {"pass": 6, "reject": 0, "fault": 1}
    return health.state


def test_a_line_with_nothing_wrong_runs() -> None:
    assert state() == "running"
    assert state(journal=None) == "running"
    assert state(cameras={"top": CameraHealth("ended", 7, 1, None)}) == "running"
    present = {"gate": SubscriberHealth(present=True, unacknowledged=3)}
    assert state(subscribers=present, required_subscribers=("gate",)) == "running"
    absent = {"dashboard": SubscriberHealth(present=False, unacknowledged=3)}
    assert state(subscribers=absent) == "running", "nobody requires it"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cameras": {"top": TOP, "side": CameraHealth("opening", 0, 0, None)}},
        {"cameras": {"top": CameraHealth("running", 7, 1, "the picture is damaged")}},
        {"lanes_failing": True},
        {"servers": "10.1.0.9:8001: no answer within 200 ms"},
        {"golden": GoldenHealth("failed", "2026-01-31T12:00:00.000000Z", 2, 1, False, "dent.png: …")},
        {"golden": GoldenHealth("overdue", None, 2, 0, False, "parts left no pause")},
        {"drift": {"top": DriftHealth(99, "lamp", 7, "15% darker", "clean it")}},
        {"journal": JournalHealth("failed", 9, "0" * 64, "disk full")},
        {"journal": JournalHealth("ok", 9, "0" * 64, "its checkpoint failed")},
        {
            "subscribers": {"gate": SubscriberHealth(present=False, unacknowledged=3)},
            "required_subscribers": ("gate",),
        },
    ],
)
def test_anything_wrong_degrades_a_line_that_runs_and_no_other(wrong: dict[str, Any]) -> None:
    assert state(**wrong) == "degraded"
    for phase in ("starting", "stopping", "failed"):
        assert state(**wrong, phase=phase) == phase
