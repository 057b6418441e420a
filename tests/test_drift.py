"""Drift: whether it is told, under its right name, and whether nothing is told while nothing drifts."""

import base64
import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from documented_sql import documented_commands, rows_of
from line_rig import running, write_config
from patience import PATIENCE_S
from test_daemon_reload import inspectctl, rewrite
from test_golden import notes

from calibration.calibration_file import read_calibration, write_calibration
from calibration.cli import main as calibrate
from calibration.drift import DriftMonitor
from calibration.drift_baseline import (
    FIRST_CELL,
    FIRST_SPOT,
    SCORE,
    VALUES,
    DriftBaseline,
    Recorder,
    Values,
    dependence,
    values_of,
)
from daemon.cli import main as inspectd
from daemon.config import load_config
from daemon.delivery.drift_watch import DriftWatch
from daemon.judging.ledger import CapturedFrame, FrameKey
from daemon.load import load_products
from foundation.errors import InputError
from pictures.appearance import BRIGHTNESS, DOWN, RIGHT, Appearance
from pictures.frames import Frame

SIDE = 128


class _Slot:
    """A source of one frame."""

    picture_size = None

    def __init__(self, frame: Frame) -> None:
        self.slots = [frame]

    def free(self, slot: int) -> None:
        pass


Change = Callable[[Frame, int], Frame]


def part(seed: int, side: int = SIDE) -> Frame:
    """Draw a part with tool marks, a hole and sensor noise; it lies a little elsewhere each time."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    right, down = random.normal(0, 0.004, 2)
    radius = np.hypot(x - 0.5 - right, y - 0.48 - down)
    level = np.where(radius < 0.36, 120 + 12 * np.sin(60 * radius), 40.0)
    level[np.hypot(x - 0.62 - right, y - 0.4 - down) < 0.06] = 20
    level = cv2.GaussianBlur(level.astype(np.float32), (0, 0), 0.7) * (1 + random.normal(0, 0.02))
    return np.clip(level[..., None] + random.normal(0, 2, (side, side, 3)), 0, 255).astype(np.uint8)


def values(appearance: Appearance, picture: Frame, seed: int) -> Values:
    random = np.random.default_rng(seed)
    found = np.empty(VALUES, np.float32)
    anomaly_map = random.gamma(2, 0.1, (16, 16)).astype(np.float32)
    values_of(appearance, picture, float(anomaly_map.max()), anomaly_map, found)
    return found


@pytest.fixture(scope="module")
def baseline() -> DriftBaseline:
    recorder, random = Recorder(), np.random.default_rng(0)
    for seed in range(80):
        recorder.see(part(seed))
    for seed in range(80):
        anomaly_map = random.gamma(2, 0.1, (16, 16)).astype(np.float32)
        recorder.measure(part(seed), float(anomaly_map.max()), anomaly_map)
    found = recorder.baseline()
    assert found is not None
    return DriftBaseline.model_validate_json(found.model_dump_json())


@pytest.fixture(scope="module")
def unchanged(baseline: DriftBaseline) -> Values:
    appearance = Appearance(baseline.picture())
    return np.stack([values(appearance, part(seed), seed) for seed in range(1000, 1120)])


def dimmed(picture: Frame, _: int) -> Frame:
    return np.asarray(picture * 0.85, np.uint8)


def blurred(picture: Frame, _: int) -> Frame:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.2), np.uint8)


def shifted(picture: Frame, _: int) -> Frame:
    return np.asarray(np.roll(picture, 2, axis=1), np.uint8)


def specked(picture: Frame, _: int) -> Frame:
    return np.asarray(cv2.circle(picture.copy(), (50, 80), 4, (60, 60, 60), -1), np.uint8)


def rougher(picture: Frame, seed: int) -> Frame:
    grain = np.random.default_rng(seed).normal(0, 8, (SIDE, SIDE, 1))
    return np.clip(picture + grain * (picture > 80), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "cause", "amount"),
    [
        (dimmed, "lamp", "1[4-6]% darker"),
        (blurred, "focus", "% less sharp"),
        (shifted, "position", r"lie \+(1\.[89]|2)"),
        (specked, "dirt", "darker: x 50, y (78|82) of"),
        (rougher, "parts", "moved: "),
    ],
    ids=["lamp", "focus", "position", "dirt", "parts"],
)
def test_a_change_is_told_by_its_name_and_when_it_began(
    baseline: DriftBaseline, unchanged: Values, change: Change, cause: str, amount: str
) -> None:
    monitor, appearance = DriftMonitor(baseline), Appearance(baseline.picture())
    assert not any(monitor.observe(number, row) for number, row in enumerate(unchanged))
    began = len(unchanged)
    rows = [values(appearance, change(part(2000 + number), number), number) for number in range(60)]
    for number, row in enumerate(rows * 3, start=began):
        if monitor.observe(number, row):
            break
    assert monitor.alarm is not None
    assert (monitor.alarm.cause, monitor.alarm.do != "") == (cause, True)
    assert re.search(amount, monitor.alarm.amount)
    assert began <= monitor.alarm.since <= began + 10
    assert monitor.alarm.found < began + 100
    # It is over when it is over; or when a person says that this is normal.
    for number, row in enumerate(np.tile(unchanged, (4, 1)), start=2000):
        if monitor.observe(number, row):
            break
    assert monitor.alarm is None
    for number, row in enumerate(rows * 2, start=3000):
        monitor.observe(number, row)
    assert monitor.alarm is not None
    monitor.accept()
    assert not any(monitor.observe(number, row) for number, row in enumerate(rows * 4))
    taken_over = DriftMonitor(baseline)
    taken_over.restore(monitor.means(), monitor.accepted_from)
    assert not any(taken_over.observe(number, row) for number, row in enumerate(rows * 4))


@pytest.mark.slow
def test_unchanged_parts_raise_no_alarm_and_nor_do_a_few_odd_ones(
    baseline: DriftBaseline, unchanged: Values
) -> None:
    monitor, random = DriftMonitor(baseline), np.random.default_rng(0)
    for number in range(20_000):
        row = unchanged[int(random.integers(len(unchanged)))]
        if number % 20 == 0:  # a defect, or a wild picture
            row = row * 3
        assert not monitor.observe(number, row), monitor.alarm


def test_place_and_brightness_are_measured_in_their_units(baseline: DriftBaseline) -> None:
    appearance, picture = Appearance(baseline.picture()), part(5)
    plain = values(appearance, picture, 0)
    moved = values(appearance, np.roll(picture, (3, -2), axis=(0, 1)), 0)
    assert moved[DOWN] - plain[DOWN] == pytest.approx(3, abs=0.5)
    assert moved[RIGHT] - plain[RIGHT] == pytest.approx(-2, abs=0.5)
    darker = values(appearance, dimmed(picture, 0), 0)
    assert np.exp(darker[BRIGHTNESS] - plain[BRIGHTNESS]) == pytest.approx(0.85, abs=0.01)


def test_what_is_accepted_is_how_parts_looked_since_the_alarm(
    baseline: DriftBaseline, unchanged: Values
) -> None:
    monitor, number = DriftMonitor(baseline), 0
    for row in unchanged:
        monitor.observe(number := number + 1, row)
    darker = unchanged.copy()
    darker[:, BRIGHTNESS] -= 0.3
    while monitor.alarm is None:
        monitor.observe(number := number + 1, darker[number % len(darker)])
    assert monitor.alarm.cause == "lamp"
    slowly = 0.04 * np.sin(np.arange(1000) / 20)  # the last parts alone would not do
    for step, more in enumerate(slowly[:360]):
        row = darker[step % len(darker)].copy()
        row[BRIGHTNESS] += more
        monitor.observe(number := number + 1, row)
    monitor.accept()
    assert monitor.accepted_from == 250
    assert monitor.means()[BRIGHTNESS] == pytest.approx(float(darker[:, BRIGHTNESS].mean()), abs=0.015)
    for step, more in enumerate(slowly[360:]):
        row = darker[step % len(darker)].copy()
        row[BRIGHTNESS] += more
        monitor.observe(number + step, row)
        assert monitor.alarm is None


def test_a_speck_is_told_where_parts_vary() -> None:
    """The level of the place varies by 40 %, as a colour may, but hardly against what is around it."""

    def picture(seed: int, *, speck: bool = False) -> Frame:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
        around = np.exp(-(np.hypot(x - 0.4, y - 0.6) ** 2) / 0.02) * random.normal(0, 0.4)
        drawn = part(seed) * np.clip(1 + around, 0.2, 2)[..., None]
        if speck:
            mask = cv2.circle(np.zeros((SIDE, SIDE), np.float32), (51, 77), 3, 0.4, -1)
            drawn = drawn * (1 - cv2.GaussianBlur(mask, (0, 0), 1)[..., None])
        return np.clip(drawn, 0, 255).astype(np.uint8)

    recorder = Recorder()
    for seed in range(40):
        recorder.see(picture(seed))
    for seed in range(40):
        recorder.measure(picture(seed), 0.3, np.full((16, 16), 0.1, np.float32))
    baseline = recorder.baseline()
    assert baseline is not None
    appearance = Appearance(baseline.picture())
    rows = [values(appearance, picture(1000 + number, speck=True), number) for number in range(60)]
    for row in rows:
        row[SCORE:FIRST_CELL] = baseline.mean[SCORE:]  # it is the picture that shows it

    def told(baseline: DriftBaseline) -> str | None:
        monitor = DriftMonitor(baseline)
        for number, row in enumerate(rows * 4):
            monitor.observe(number, row)
        return None if monitor.alarm is None else f"{monitor.alarm.cause}: {monitor.alarm.amount}"

    found = re.match(r"dirt: .* darker: x (\d+), y (\d+) of", str(told(baseline)))
    assert found is not None
    assert [int(found[1]), int(found[2])] == pytest.approx([51, 77], abs=3)
    # One of an earlier version knows levels alone, and goes on with what was accepted then.
    earlier = DriftBaseline.model_validate(baseline.model_dump() | {"spots": None})
    assert told(earlier) is None
    monitor = DriftMonitor(earlier)
    monitor.restore(monitor.means()[:FIRST_SPOT], 30)
    for spots in ("no base64", "AAAA", base64.b64encode(np.full(3 * 48 * 48, np.nan, np.float16)).decode()):
        with pytest.raises(ValueError, match=r"spots\n.*expected"):
            DriftBaseline.model_validate(baseline.model_dump() | {"spots": spots})


def test_too_few_parts_are_no_new_normal() -> None:
    watch = DriftWatch(1_000_000, None, lambda news: None)
    with pytest.raises(InputError, match="found 0 parts that were looked at, expected at least 30"):
        watch.accept(None, None).result(timeout=PATIENCE_S)
    watch.close()


def test_a_frame_leaves_no_memory_behind(line_folder: Path) -> None:
    """Neither what the event loop does for a frame nor what the thread does keeps memory."""
    file = line_folder / "brightness.calibration.yaml"
    recorder = Recorder()
    pictures = [part(seed, 64) for seed in range(20)]
    for picture in pictures:
        recorder.see(picture)
    for picture in pictures:
        recorder.measure(picture, 0.1, np.zeros((8, 8), np.float32))
    write_calibration(file, read_calibration(file).model_copy(update={"drift": recorder.baseline()}))
    config = write_config(line_folder, {"top": {"source": "."}})
    [product] = load_products(load_config(config), config, {}).values()
    watch, news = DriftWatch(1_000_000, None, lambda told: None), FrameKey("top", 1)
    watch.take_up([product])
    source = _Slot(pictures[0])
    captured = CapturedFrame(news, product, source, 0, 0, 1, None, None)
    anomaly_map = np.zeros((8, 8), np.float32)

    def offer(times: int) -> int:
        for _ in range(times):
            watch.offer(captured, 0.1, anomaly_map)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        give_up_s = time.monotonic() + 60
        while watch.health(None, ["top"])["top"].parts < 2:
            assert time.monotonic() < give_up_s
            offer(100)
        before = offer(2000)
        grown = offer(20_000) - before
    finally:
        tracemalloc.stop()
        watch.close()
    assert grown < 20_000  # less than a byte for each


def test_dependence_is_that_of_the_order_of_time() -> None:
    random = np.random.default_rng(0)
    independent = random.normal(size=(400, 5))
    slow = np.zeros((400, 5))
    for row in range(1, 400):
        slow[row] = 0.9 * slow[row - 1] + random.normal(size=5)
    assert (dependence(independent) == 4).all()
    assert 8 < np.median(dependence(slow)) < 40  # 19 in truth


# On the line.


def pictures(folder: Path, *, gain: float = 1.0) -> Path:
    folder.mkdir()
    for seed in range(40):
        cv2.imwrite(str(folder / f"{seed:02}.png"), np.asarray(part(seed, 64) * gain, np.uint8))
    return folder


@pytest.fixture
def watched(line_folder: Path) -> Iterator[Path]:
    """A line that was calibrated on parts of a better lamp than it has now."""
    good = pictures(line_folder / "good")
    pictures(line_folder / "parts", gain=0.8)
    target = line_folder / "brightness.calibration.yaml"
    arguments = [str(line_folder / "brightness.engine"), "--good", str(good), "-o", str(target)]
    assert calibrate([*arguments, "--false-reject-rate", "0.05"]) == 0
    camera = {"source": "parts", "fps": 60, "loop": True}
    control = f"ipc://{line_folder}/control"
    journal = {"file": "line3.journal"}
    yield write_config(line_folder, {"top": camera}, journal=journal, control=control, drift={})


def drifted(line: object) -> bool:
    drift = line.health.drift  # type: ignore[attr-defined]
    return drift is not None and drift["top"].cause is not None


@pytest.mark.slow
def test_a_line_tells_of_its_lamp_until_somebody_accepts_it(watched: Path) -> None:
    with running(watched) as line:
        line.until(drifted)
        assert line.health.state == "degraded"
        assert line.health.drift is not None
        assert line.health.drift["top"].cause == "lamp"
        shown = inspectctl("drift", "--config", watched)
        assert shown.returncode == 1, shown.stderr
        assert "top: lamp since frame" in shown.stdout
        assert "darker" in shown.stdout
        accepted = inspectctl("drift", "accept", "--by", "Ada", "--config", watched)
        assert accepted.returncode == 0, accepted.stderr
        line.until(lambda line: line.health.state == "running")
        line.stop()
    with running(watched) as line:  # which knows what was accepted
        line.until(lambda line: line.health.drift is not None and line.health.drift["top"].parts > 60)
        assert not drifted(line)
        assert inspectctl("drift", "--config", watched).returncode == 0
        for wrong, expected in (
            (["--camera", "left"], "camera 'left': unknown; expected one of top"),
            (["--by", "Ada"], "--by: found without accept, expected both"),
        ):
            told_wrong = inspectctl("drift", *wrong, "--config", watched)
            assert (told_wrong.returncode, told_wrong.stderr.count("\n")) == (2, 1)
            assert expected in told_wrong.stderr
        line.stop()
    [told] = notes(watched.parent, "drift")
    assert (told["cause"], told["camera"]) == ("lamp", "top")
    [kept] = notes(watched.parent, "drift_accepted")
    assert (kept["by"], kept["cameras"]) == ("Ada", {"top": "lamp"})
    events, outcomes = documented_commands("golden.md")
    for kind in ("drift", "drift_accepted"):
        assert rows_of(events.replace("'golden'", f"'{kind}'"), watched.with_name("line3.journal"))
    listed = [row[1:] for row in rows_of(outcomes, watched.with_name("line3.journal"))]
    assert listed == [("drift_accepted", "Ada", None), ("drift", None, "lamp")]


@pytest.mark.slow
def test_what_cannot_be_watched_is_refused_in_one_line(
    watched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(expected: str) -> None:
        capsys.readouterr()
        assert inspectd(["--config", str(watched)]) == 2
        told = [line for line in capsys.readouterr().err.splitlines() if "drift" in line]
        assert len(told) == 1 and expected in told[0], told

    kept = watched.parent / "line3.journal-drift"
    for content in ("{}", json.dumps({"schema": 1, "accepted": {"/top": {"mean": [1]}}}), "no JSON"):
        kept.write_text(content)
        refuses("line3.journal-drift: expected what inspectd keeps of accepted drift")
    kept.unlink()
    file = watched.parent / "brightness.calibration.yaml"
    write_calibration(file, read_calibration(file).model_copy(update={"drift": None}))
    refuses("does not say how good parts look; run calibrate again")
    rewrite(watched, lambda content: content.update(drift={"parts_per_false_alarm": 10}))
    refuses("drift.parts_per_false_alarm")
