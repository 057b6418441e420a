"""Engines that break in a real runtime: the frames must still get their verdicts."""

import queue
import signal
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from engine_graphs import UNCALIBRATED
from line_rig import part_image, running, write_config
from numpy.typing import NDArray
from patience import PATIENCE_S
from treacherous import FAILS, GOOD, HANGS, SLOW, WANTS_ALL_MEMORY, draw_parts, make_treacherous

from daemon.capture.slots import FrameSlots
from daemon.config import load_config
from daemon.judging.lane import Judged, Lane, NotJudged, needed_ns
from daemon.judging.lanes import Lanes
from daemon.judging.ledger import CapturedFrame, FrameKey
from daemon.judging.queue import WaitingFrames
from daemon.load import load_products
from daemon.setup import Setup
from engine_runtime.engine import ANOMALY_MAP, SCORE
from engine_runtime.manifest import Manifest
from foundation.errors import EngineFailed


@pytest.fixture
def treacherous_folder(line_folder: Path) -> Path:
    make_treacherous(line_folder)
    return line_folder


@pytest.mark.parametrize("grey", [FAILS, WANTS_ALL_MEMORY])
def test_an_engine_that_raises_is_opened_anew_and_its_frame_is_a_fault(
    treacherous_folder: Path, grey: int
) -> None:
    draw_parts(treacherous_folder / "parts", GOOD, GOOD, grey, GOOD, grey, GOOD, GOOD, 255)
    config = write_config(treacherous_folder, {"top": {"source": "parts", "waiting": 1}}, max_batch=1)
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    decisions = [(v.decision, v.reason) for v in sorted(line.verdicts, key=lambda v: v.frame)]
    good, fault = ("pass", None), ("fault", "engine")
    assert decisions == [good, good, fault, good, fault, good, good, ("reject", None)]
    assert "the engine failed (1 in a row)" in errors
    assert "(2 in a row)" not in errors


def test_an_engine_that_keeps_failing_stops_the_line_with_every_frame_closed(
    treacherous_folder: Path,
) -> None:
    draw_parts(treacherous_folder / "parts", GOOD, *[FAILS] * 50)
    config = write_config(treacherous_folder, {"top": {"source": "parts", "waiting": 1}}, max_batch=1)
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 1
    assert "given up: " in errors and "3 failures in a row" in errors
    assert sorted(v.frame for v in line.verdicts) == list(range(1, len(line.verdicts) + 1))
    assert Counter(v.decision for v in line.verdicts) == {"pass": 1, "fault": len(line.verdicts) - 1}
    assert line.health.state == "failed"
    assert line.health.error is not None and "3 failures in a row" in line.health.error
    assert line.health.cameras["top"].captured == len(line.verdicts)
    assert line.health.waiting == 0


def test_an_engine_that_hangs_is_replaced_and_the_line_goes_on(treacherous_folder: Path) -> None:
    draw_parts(treacherous_folder / "parts", *[GOOD] * 5, HANGS, *[GOOD] * 20)
    config = write_config(
        treacherous_folder,
        {"top": {"source": "parts", "waiting": 1}},
        max_batch=1,
        threads=1,
        deadline_ms=60_000,
        engine_timeout_s=2,
    )
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    assert "the engine has hung for 2 s" in errors
    decisions = [(v.decision, v.reason) for v in sorted(line.verdicts, key=lambda v: v.frame)]
    assert decisions == [("pass", None)] * 5 + [("fault", "engine")] + [("pass", None)] * 20


def test_deadlines_hold_while_the_only_engine_hangs(treacherous_folder: Path) -> None:
    draw_parts(treacherous_folder / "parts", *[GOOD] * 5, HANGS, *[GOOD] * 20)
    config = write_config(
        treacherous_folder,
        {"top": {"source": "parts", "waiting": 4, "fps": 20}},
        max_batch=1,
        threads=1,
        deadline_ms=300,
        engine_timeout_s=2 * PATIENCE_S,
    )
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) == 26)  # without the engine, which never comes back
    assert [v.frame for v in sorted(line.verdicts, key=lambda v: v.frame)] == list(range(1, 27))
    late = [v.latency_ms.total for v in line.verdicts if v.reason == "deadline"]
    assert late and min(late) >= 300


def test_a_deadline_that_a_reload_shortened_holds_at_once(treacherous_folder: Path) -> None:
    draw_parts(treacherous_folder / "parts", HANGS)
    part_image(treacherous_folder / "good" / "0.png", bright=False)
    cameras: dict[str, Any] = {"top": {"source": "good", "fps": 50, "loop": True}}
    patience = {"max_batch": 1, "threads": 1, "engine_timeout_s": 5}
    config = write_config(treacherous_folder, cameras, deadline_ms=60_000, **patience)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 5)
        cameras["side"] = {"source": "parts"}
        content = yaml.safe_load(config.read_text()) | {"cameras": cameras, "deadline_ms": 300}
        config.write_text(yaml.safe_dump(content))
        line.process.send_signal(signal.SIGHUP)
        line.until(lambda line: line.verdicts[-1].camera == "side")
    assert line.verdicts[-1].reason == "deadline", "not only when the engine counts as hung"


def test_an_engine_that_hangs_three_times_in_a_row_stops_the_line(treacherous_folder: Path) -> None:
    draw_parts(treacherous_folder / "parts", *[HANGS] * 10)
    config = write_config(
        treacherous_folder,
        {"top": {"source": "parts", "waiting": 1}},
        max_batch=1,
        threads=1,
        engine_timeout_s=0.2,
    )
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 1, errors
    assert line.health.state == "failed"
    assert "hung" in (line.health.error or "")
    assert {v.decision for v in line.verdicts} == {"fault"}
    assert len(line.verdicts) == line.health.cameras["top"].captured


def test_a_score_that_is_no_number_is_an_engine_fault_and_never_a_pass(line_folder: Path) -> None:
    draw_parts(line_folder / "parts", GOOD)
    calibration = line_folder / "brightness.calibration.yaml"
    content = yaml.safe_load(calibration.read_text())
    content["quantiles"] = [[0.0, 1.0e-45], [0.0, 1.0e-45]]  # so close that the score is infinite
    calibration.write_text(yaml.safe_dump(content))
    with running(write_config(line_folder, {"top": {"source": "parts"}})) as line:
        line.until_end()
    assert [(v.decision, v.reason) for v in line.verdicts] == [("fault", "engine")]


def test_two_hold_ups_do_not_make_what_waits_since_then_look_lost() -> None:
    assert needed_ns([20, 21, 900, 19, 1300, 20]) == 21
    assert needed_ns([20, 21, 33, 19, 1300, 20]) == 33, "what varies is not what holds everything up"
    assert needed_ns([0] * 15 + [900]) == 0, "before anything is known, nothing is lost"


class Broken:
    """A device after which nothing works any more, not even giving its memory back."""

    manifest = Manifest.model_construct()
    trouble = None

    def infer(self, *_: object) -> dict[str, NDArray[np.float32]]:
        raise EngineFailed("an illegal address")

    def half_precision_share(self) -> float:
        return 0.0

    def close(self) -> None:
        raise RuntimeError("an illegal address, still")


def test_an_engine_that_cannot_be_closed_keeps_no_verdict_back(
    line_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(line_folder, {"top": {"source": "parts"}})
    product = load_products(load_config(config), config)[None]
    slots = FrameSlots.create(2, (*product.manifest.input_size, 3))
    source = SimpleNamespace(slots=slots, picture_size=None)
    waiting, results = WaitingFrames(), queue.SimpleQueue[Judged | NotJudged]()
    lane = Lane({product: Broken()}, wanted={product}, waiting=waiting, deliver=results.put)
    lane.start()
    for slot in range(2):
        captured = CapturedFrame(FrameKey("top", slot + 1), product, source, slot, 0, 2**62, None, None)
        waiting.put(captured)
        waiting.wake()
        result = results.get(timeout=PATIENCE_S)
        assert [frame.key.frame for frame in result.frames] == [slot + 1]
        if slot == 0:
            assert isinstance(result, NotJudged) and result.error == "an illegal address"
        else:
            assert isinstance(result, Judged), "the engine is opened again"
    waiting.end()
    lane.join(PATIENCE_S)
    assert not lane.is_alive()
    assert "brightness.engine: could not be closed: an illegal address, still" in caplog.text
    del result, captured
    slots.close()


def test_an_engine_that_cannot_be_closed_keeps_no_other_open(
    line_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(line_folder, {"top": {"source": "parts"}}, lanes=2)
    product = load_products(load_config(config), config)[None]
    closed: list[str] = []
    other: Any = SimpleNamespace(close=lambda: closed.append("other"))
    Setup(
        load_config(config), {None: product}, [{product: Broken()}, {product: other}], {}, {}, {}, {}
    ).close()
    assert closed == ["other"]
    assert "brightness.engine: could not be closed: an illegal address, still" in caplog.text


class Slow:
    """A product, and its engine, that take until they are let go: on a GPU, opening takes the longest."""

    engine = Path("slow.engine")
    max_batch = 1
    quantiles = UNCALIBRATED
    weights = None
    score_parts = False
    trouble = None

    def __init__(self) -> None:
        self.opened = 0
        self.opening, self.judging = threading.Event(), threading.Event()
        self.may_open, self.may_judge = threading.Event(), threading.Event()

    def open(self) -> "Slow":
        self.opened += 1
        self.opening.set()
        assert self.may_open.wait(PATIENCE_S)
        return self

    def infer(self, frames: list[object], *_: object) -> dict[str, NDArray[np.float32]]:
        self.judging.set()
        assert self.may_judge.wait(PATIENCE_S)
        return {
            SCORE: np.zeros(len(frames), np.float32),
            ANOMALY_MAP: np.zeros((len(frames), 1, 1), np.float32),
        }

    def close(self, engine: "Slow") -> None:
        pass


def test_a_lane_in_the_place_of_another_keeps_the_engines_of_all_products_open() -> None:
    flange: Any = Slow()
    washer: Any = Slow()
    source: Any = SimpleNamespace(slots=[np.zeros((8, 8, 3), np.uint8)])
    waiting, results = WaitingFrames(), queue.SimpleQueue[Judged | NotJudged]()
    lanes = Lanes([{flange: flange, washer: washer}], waiting=waiting, deliver=results.put)
    lanes.start()

    def capture(number: int, product: Any) -> None:
        waiting.put(CapturedFrame(FrameKey("top", number), product, source, 0, 0, 2**62, None, None))
        waiting.wake()

    capture(1, flange)
    assert flange.judging.wait(PATIENCE_S)
    [_] = lanes.replace_hung(0.0)
    for event in (flange.may_open, flange.may_judge, washer.may_open, washer.may_judge):
        event.set()
    assert results.get(timeout=PATIENCE_S).lane.abandoned
    for number, product in enumerate((washer, flange, washer, flange), start=2):
        capture(number, product)
        result = results.get(timeout=PATIENCE_S)
        assert isinstance(result, Judged) and result.frames[0].key.frame == number
    assert (flange.opened, washer.opened) == (1, 1)
    waiting.end()
    lanes.join(PATIENCE_S)


def test_opening_an_engine_anew_is_no_hang_but_judging_too_long_is() -> None:
    product: Any = Slow()
    source: Any = SimpleNamespace(slots=[np.zeros((8, 8, 3), np.uint8)])
    waiting, results = WaitingFrames(), queue.SimpleQueue[Judged | NotJudged]()
    lanes = Lanes([{}], waiting=waiting, deliver=results.put)
    lanes.start()
    waiting.put(CapturedFrame(FrameKey("top", 1), product, source, 0, 0, 2**62, None, None))
    waiting.wake()
    assert product.opening.wait(PATIENCE_S)
    assert lanes.replace_hung(0.0) == []
    product.may_open.set()
    assert product.judging.wait(PATIENCE_S)
    [hung] = lanes.replace_hung(0.0)
    assert [frame.key.frame for frame in hung.frames] == [1]
    assert hung.error == "the engine has hung for 0 s"
    product.may_judge.set()
    assert results.get(timeout=PATIENCE_S).lane.abandoned, "what it gives after all is not taken"
    waiting.end()
    lanes.join(PATIENCE_S)


@pytest.mark.slow
def test_a_line_that_ends_by_itself_judges_all_that_waits(treacherous_folder: Path) -> None:
    # When the camera ends, what waits needs longer than a line that is stopped would give it.
    draw_parts(treacherous_folder / "parts", GOOD, *[SLOW] * 200)
    config = write_config(
        treacherous_folder, {"top": {"source": "parts", "waiting": 250}}, max_batch=1, deadline_ms=60_000
    )
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    assert [verdict.decision for verdict in line.verdicts] == ["pass", *["reject"] * 200]
    assert line.verdicts[-1].latency_ms.total > 6000


@pytest.mark.slow
def test_under_overload_nearly_as_many_parts_are_judged_as_the_engine_can(treacherous_folder: Path) -> None:
    # Two cameras with longer queues than deadlines: the oldest frames that wait are always almost lost.
    draw_parts(treacherous_folder / "parts", SLOW)
    config = write_config(
        treacherous_folder,
        {name: {"source": "parts", "loop": True, "fps": 60, "waiting": 60} for name in ("top", "side")},
        max_batch=1,
        deadline_ms=500,
    )
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) >= 120)  # one second: the queues are full
        before = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) >= before + 600)
        line.stop()
    judged = [
        verdict.latency_ms for verdict in line.verdicts[before : before + 600] if verdict.reason is None
    ]
    busy_ms = sum(latency.infer for latency in judged if latency.infer is not None)
    assert busy_ms > 0.75 * 600 / 120 * 1000
    assert {verdict.reason for verdict in line.verdicts} <= {None, "deadline", "overload"}
