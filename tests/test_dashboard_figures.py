"""What the dashboard computes: spreads, limits, windows of scores, causes."""

import json
import math
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_process import a_health, a_verdict
from line_rig import REPOSITORY

from calibration.tail import expected_rates, fit_threshold
from daemon.journal.stamps import iso
from dashboard import gallery
from dashboard.causes import Known, causes
from dashboard.gallery import Wanted
from dashboard.records import Shown, parse_id, shown
from dashboard.rollup import Rollup
from dashboard.spread import Spread
from dashboard.trends import limits, starts, trends, unusual
from dashboard.what_if import Key, Window, defects_let_through
from verdicts import CameraHealth, SubscriberHealth

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(NUMBERS, min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_of_a_spread_is_right_to_within_a_bin(numbers: list[float], share: float) -> None:
    spread = Spread()
    for number in numbers:
        spread.add(number)
    true = sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]
    found = Spread.parse(str(spread)).quantile(share)
    assert found is not None
    assert abs(found - true) <= 0.03 * abs(true) + 2e-6


def test_a_p_chart_allows_for_overdispersion() -> None:
    rng = np.random.default_rng(0)
    judged = [20_000] * 60
    plain = limits(list(rng.binomial(20_000, 0.01, 60)), judged)
    assert plain["overdispersion"] < 1.3
    rates = rng.normal(0.01, 0.003, 60).clip(0.001)
    varying = limits([int(rng.binomial(20_000, rate)) for rate in rates], judged)
    assert varying["overdispersion"] > 2
    assert len(varying["outside"]) <= 2
    assert limits([0, 5], [0, 0])["centre"] is None


def test_more_rejects_than_usual_are_noticed(rollup: Rollup) -> None:
    minute = 30_000_000  # a quarter of an hour begins
    rng = np.random.default_rng(2)
    with rollup.transaction():
        for quarter in range(40):
            rejects = int(rng.binomial(1000, 0.01)) if quarter < 39 else 40
            rows = [
                (minute + 15 * quarter, 1, 0, 0, 1000 - rejects, 1),
                (minute + 15 * quarter, 1, 0, 1, rejects, 1),
            ]
            rollup._writing.executemany("INSERT INTO minutes VALUES (?, ?, ?, ?, ?, ?)", rows)
    found = unusual(rollup, (minute + 15 * 40) * 60_000_000)
    assert found is not None
    assert found[0] == 0.04
    assert found[1] == pytest.approx(0.0107, abs=0.001)
    assert unusual(rollup, (minute + 15 * 39) * 60_000_000) is None
    assert unusual(rollup, (minute + 15 * 41) * 60_000_000) is None  # nothing came lately


def test_shifts_begin_in_local_time() -> None:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("Europe/Berlin")
    since = datetime(2026, 10, 24, 12, tzinfo=zone).timestamp()  # the clocks change in the night after
    begin = starts("shift", int(since * 1e6), int((since + 2 * 86_400) * 1e6), ("06:00", "22:00"), zone)
    local = [f"{datetime.fromtimestamp(start / 1e6, zone):%d %H:%M}" for start in begin]
    assert local == ["24 06:00", "24 22:00", "25 06:00", "25 22:00", "26 06:00"]


def test_expected_rates_agree_with_the_threshold_that_was_fitted() -> None:
    scores = np.random.default_rng(1).exponential(1.0, 2000)
    fitted = fit_threshold(scores, 0.001)
    [rate, half] = expected_rates(scores, [fitted.value, float(np.median(scores))])
    assert rate == pytest.approx(0.001, rel=0.2)
    assert half == pytest.approx(0.5, abs=0.001)


@pytest.fixture
def rollup(tmp_path: Path) -> Rollup:
    return Rollup(tmp_path / "line3.rollup", "line3")


def filled(rollup: Rollup, scores: list[float], threshold: float = 0.5, **changes: object) -> list[Shown]:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC) - timedelta(minutes=5)
    verdicts = [
        shown(
            a_verdict(
                number,
                score=score,
                threshold=threshold,
                decision="reject" if score > threshold else "pass",
                captured_at=f"{now + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%fZ}",
                **changes,
            ),
            None,
            None,
        )
        for number, score in enumerate(scores, 1)
    ]
    with rollup.transaction():
        rollup.add(verdicts)
    return verdicts


def float32s() -> st.SearchStrategy[float]:
    return st.floats(0, 1, width=32)


@settings(max_examples=30)
@given(scores=st.lists(float32s(), min_size=1, max_size=60), threshold=float32s())
def test_a_preview_counts_what_a_loop_would(scores: list[float], threshold: float) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        rollup = Rollup(Path(folder) / "rollup", "line3")
        filled(rollup, scores)
        window = Window(rollup, Key(None, "flange-xs", None, 1.0))
        change = window.preview(rollup, threshold)
        assert change.more_rejected == sum(threshold < score <= 0.5 for score in scores)
        assert change.fewer_rejected == sum(0.5 < score <= threshold for score in scores)
        assert change.rejected == sum(score > threshold for score in scores)
        changing = window.changing(rollup, threshold, 0, 1000)
        assert len(changing) == change.more_rejected + change.fewer_rejected
        distances = [abs(verdict.score - threshold) for verdict in changing if verdict.score is not None]
        assert distances == sorted(distances)
        histogram = window.histogram(rollup, 0.5)
        assert sum(histogram["pass"]) + sum(histogram["reject"]) == len(scores)
        rollup.close()


def test_what_was_judged_since_a_threshold_holds_is_in_the_order_of_time(rollup: Rollup) -> None:
    before = filled(rollup, [0.1, 0.9, 0.3, 0.2, 0.8, 0.7, 0.4])
    rollup.label(
        [("aa", 5, "false_reject", None, 1), ("aa", 6, "defect", None, 1), ("aa", 2, "defect", None, 1)]
    )
    window = Window(rollup, Key(None, "flange-xs", None, 1.0))
    judged = window.judged_since(rollup, before[2].at_us)
    assert judged.passes == pytest.approx([0.3, 0.2, 0.4])
    assert (judged.rejects, judged.false_rejects, judged.defects) == (2, 1, 1)
    assert len(window.judged_since(rollup, before[-1].at_us + 1).passes) == 0


def test_a_defect_counts_whatever_the_hours(rollup: Rollup) -> None:
    filled(rollup, [0.1, 0.6, 0.7, 0.9])
    rollup.label([("aa", 2, "defect", None, 1), ("aa", 4, "disputed", None, 2), ("aa", 1, "defect", None, 1)])
    assert defects_let_through(rollup, None, "flange-xs", 0.5, 0.65) == 1
    assert defects_let_through(rollup, None, "flange-xs", 0.5, 1.0) == 2
    assert defects_let_through(rollup, None, "flange-xs", 0.5, 0.4) == 0


def test_a_verdict_that_comes_twice_counts_once(rollup: Rollup) -> None:
    verdicts = filled(rollup, [0.1, 0.9])
    with rollup.transaction():
        assert rollup.add(verdicts) == []
    assert sum(rollup.counts_since(0).values()) == 2


def test_passes_are_forgotten_and_rejects_and_labels_are_kept(rollup: Rollup) -> None:
    filled(rollup, [0.1] * 50 + [0.9] * 2 + [0.1] * 10)
    rollup.label([("aa", 3, "defect", None, 1)])
    while rollup.forget(most=10, before_us=0):
        pass
    found = gallery.page(rollup, Wanted(decisions=("pass", "reject"), sort="oldest"), 0, 100)
    assert [verdict.seq for verdict in found] == [3, 51, 52, *range(53, 63)]
    assert sum(rollup.counts_since(0).values()) == 62  # the sums stay
    while rollup.forget(most=10, before_us=time.time_ns() // 1000):
        pass
    assert gallery.count(rollup, Wanted()) == 0


def test_the_first_cause_comes_first() -> None:
    failed = CameraHealth(state="failed", captured=1, faults=9, error="no such device")
    health = a_health(1, state="degraded", cameras={"top": failed})
    found = causes(
        Known(health=health, silent=False, minute={"pass": 50, "reject": 0, "fault": 50}, reason="camera")
    )
    assert [(cause.key, cause.follows) for cause in found] == [("camera_failed:top", False), ("faults", True)]
    silent = causes(Known(health=health, silent=True))
    assert [cause.code for cause in silent] == ["line_silent"]
    assert [cause.code for cause in causes(Known(health=None, silent=True))] == ["line_never_heard"]
    degraded = a_health(1, state="degraded")
    assert [cause.code for cause in causes(Known(health=degraded, silent=False))] == ["engine_failing"]
    assert causes(Known(health=a_health(1), silent=False)) == []


def test_a_cause_fills_the_places_of_its_sentence() -> None:
    absent = SubscriberHealth(present=False, unacknowledged=7)
    failed = CameraHealth(state="failed", captured=1, faults=9, error="no such device")
    health = a_health(1, cameras={"top": failed}, subscribers={"gate": absent}, error="journal: slow")
    many = Known(
        health=health,
        silent=False,
        minute={"pass": 90, "reject": 0, "fault": 10},
        reason="deadline",
        disks=[("/var", 5.0)],
        unusual=(0.2, 0.1),
    )
    found = causes(many) + causes(replace(many, reason="overload"))
    found += causes(Known(health=a_health(1), silent=False, p99_ms=990.0))
    expected = {"camera_failed", "subscriber_absent", "faults", "overload", "slow", "disk_nearly_full"}
    assert expected < {cause.code for cause in found}
    for file in sorted((REPOSITORY / "dashboard/static/locales").glob("*.json")):
        texts = json.loads(file.read_text())
        for cause in found:
            places = set(re.findall(r"{(\w+)}", texts[f"cause.{cause.code}"]))
            assert places <= {"subject"} | cause.values.keys(), (file.name, cause.code)
            assert "subject" not in places or cause.subject is not None


def test_faults_lie_in_their_minute(rollup: Rollup) -> None:
    now = datetime.now(UTC)
    faults = [
        a_verdict(
            seq,
            decision="fault",
            reason="deadline",
            score=None,
            peak=None,
            captured_at=iso(now - timedelta(minutes=minutes)),
        )
        for seq, minutes in enumerate((1, 1, 7), 1)
    ]
    with rollup.transaction():
        rollup.add(shown(fault, None, None) for fault in faults)
    found = trends(rollup, hours=0.5, bucket="minute", camera=None, product=None, shifts=["06:00"], zone=None)
    assert [n for n in found["reasons"]["deadline"] if n] == [n for n in found["fault"] if n] == [1, 2]
    assert found["reasons"]["deadline"] == found["fault"]


@given(st.text(max_size=30))
def test_an_id_is_read_back_or_refused(text: str) -> None:
    found = parse_id(text)
    assert found is None or parse_id(f"{found[0]}-{found[1]}") == found


def test_ids() -> None:
    assert parse_id("3fa1b2-4512") == ("3fa1b2", 4512)
    for wrong in ("", "-1", "3fa1", "3FA1-1", "aa-", "aa--1", "aa-1x", "aa-٣", "../../etc-1"):
        assert parse_id(wrong) is None


def test_a_live_picture_tells_what_it_shows_and_grows_old(tmp_path: Path) -> None:
    import json
    from dataclasses import replace
    from datetime import UTC, datetime, timedelta

    from dashboard_rig import write_line

    from dashboard.config import of_one_line
    from dashboard.kept_pictures import jpeg
    from dashboard.preview import Previews
    from dashboard.watch import LineWatch

    config = of_one_line(write_line(tmp_path, preview={"folder": "preview"}))
    line = config.lines["line3"]
    assert line.preview == tmp_path / "preview"
    line.preview.mkdir()
    watch = LineWatch(line, replace(config, state=tmp_path / "state"), None)
    previews = Previews(watch)
    assert previews.of("top").content["reason"]["code"] == "no_picture_yet"

    plain = jpeg(np.zeros((30, 40, 3), np.uint8))
    for seconds, old in ((0, False), (10, True)):
        captured = datetime.now(UTC) - timedelta(seconds=seconds)
        note = {
            **{"boot": "aa", "seq": 7, "kind": "reject", "score": 0.6, "width": 40, "height": 30},
            "captured_at": f"{captured:%Y-%m-%dT%H:%M:%S.%fZ}",
        }
        text = json.dumps(note).encode()
        commented = plain[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + plain[2:]
        (line.preview / "top.jpg").write_bytes(commented)
        found = previews.of("top").content
        assert (found["source"], found["id"], found["kind"]) == ("live", "aa-7", "reject")
        assert found["old"] is old
        assert previews.jpeg("top") == commented
    (line.preview / "top.jpg").write_bytes(plain)  # not a line's
    assert previews.of("top").content["source"] == "none"

    previews.lease()
    lease = line.preview / "lease"
    assert abs(lease.stat().st_mtime - time.time()) < 5
    watch.close()
