import time
from collections import Counter
from pathlib import Path

import pytest
from engine_graphs import UNCALIBRATED
from hypothesis import given
from hypothesis import strategies as st

from calibration.calibration_file import Calibration
from daemon.capture.slots import FrameSlots
from daemon.judging.ledger import CapturedFrame, FrameKey, Ledger
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from engine_runtime.manifest import Manifest
from pictures.frames import Size
from pictures.heatmap import MapGeometry


def product(max_batch: int) -> Product:
    return Product(
        name=None,
        engine=Path("any.engine"),
        calibration=Path("any.calibration.yaml"),
        calibration_sha256="",
        calibrated=Calibration.model_construct(),
        manifest=Manifest.model_construct(),
        trusted=None,
        threads=None,
        max_batch=max_batch,
        threshold=0.5,
        quantiles=UNCALIBRATED,
        geometry=MapGeometry(Size(8, 8), Size(1, 1), (8.0, 8.0)),
    )


class Source:
    """Where frames come from; here nobody asks for their pixels."""

    slots: FrameSlots
    picture_size = None

    def free(self, slot: int) -> None:
        pass


PRODUCTS = {most: product(most) for most in range(1, 9)}


def captured(camera: str, frame: int, deadline_ns: int = 100, most: int = 4) -> CapturedFrame:
    return CapturedFrame(FrameKey(camera, frame), PRODUCTS[most], Source(), frame, 0, deadline_ns, None, None)


# What can happen to a line, in any order: a camera captures; a lane takes a batch; a lane delivers a batch,
# perhaps long after its deadline; a result is lost with its lane and never comes; time passes; overload
# drops a waiting frame.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("capture"), st.sampled_from(["top", "side"]), st.integers(1, 50)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("lose"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("pass time"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("overload"), st.sampled_from(["top", "side"]), st.just(0)),
    ),
    max_size=120,
)


@given(EVENTS)
def test_every_frame_is_closed_exactly_once(events: list[tuple[str, str | int, int]]) -> None:
    ledger, waiting = Ledger(), WaitingFrames()
    numbers: Counter[str] = Counter()
    in_lanes: list[list[CapturedFrame]] = []
    closed: Counter[FrameKey] = Counter()
    now_ns = 0

    def close(key: FrameKey) -> None:
        closed[key] += ledger.close(key) is not None

    for event, what, patience in events:
        match event, what:
            case "capture", str(camera):
                numbers[camera] += 1
                frame = captured(camera, numbers[camera], now_ns + patience)
                ledger.open(frame)
                waiting.put(frame)
            case "take", _ if len(waiting):
                in_lanes.append(waiting.take())
            case "deliver", int(lane) if in_lanes:
                for frame in in_lanes.pop(lane % len(in_lanes)):
                    close(frame.key)
            case "lose", int(lane) if in_lanes:
                in_lanes.pop(lane % len(in_lanes))
            case "pass time", int(duration):
                now_ns += duration
                for key in ledger.overdue(now_ns):
                    waiting.withdraw(key)
                    close(key)
            case "overload", str(camera):
                oldest = waiting.withdraw_oldest(camera)
                if oldest is not None:
                    close(oldest.key)
        deadline_ns = ledger.next_deadline_ns()
        assert (deadline_ns is None) == (len(ledger) == 0)

    # Deadlines alone must close whatever is left, also what no lane will ever deliver.
    for key in ledger.overdue(now_ns + 1000):
        close(key)
    assert len(ledger) == 0
    every = {FrameKey(camera, frame) for camera in numbers for frame in range(1, numbers[camera] + 1)}
    assert {key for key, times in closed.items() if times} == every
    assert max(closed.values(), default=1) == 1


def test_what_is_lost_does_not_hold_up_what_can_be_judged_in_time() -> None:
    waiting = WaitingFrames()
    second_ns = 1_000_000_000
    now_ns = time.monotonic_ns()
    for frame, seconds in enumerate((-1, 5, 50, 500, 5000), start=1):
        waiting.put(captured("top", frame, now_ns + seconds * second_ns, most=2))

    def taken(needed_s: int) -> list[int]:
        return [frame.key.frame for frame in waiting.take(needed_s * second_ns)]

    assert taken(100) == [4, 5]
    # Nothing else waits: somebody may as well try.
    assert taken(100) == [1, 2]
    assert taken(100) == [3]
    assert not len(waiting)


def test_a_frame_cannot_be_entered_twice() -> None:
    ledger = Ledger()
    ledger.open(captured("top", 1))
    with pytest.raises(ValueError, match="open already"):
        ledger.open(captured("top", 1))


def test_overdue_frames_come_earliest_first() -> None:
    ledger = Ledger()
    for frame, deadline_ns in ((1, 30), (2, 10), (3, 20), (4, 99)):
        ledger.open(captured("top", frame, deadline_ns))
    assert ledger.next_deadline_ns() == 10
    assert [key.frame for key in ledger.overdue(30)] == [2, 3, 1]


@given(st.lists(st.tuples(st.sampled_from(["top", "side"]), st.sampled_from([1, 2, 8]))))
def test_lanes_get_the_oldest_first_in_batches_of_one_product_and_nothing_twice(
    arrivals: list[tuple[str, int]],
) -> None:
    waiting = WaitingFrames()
    put = [captured(camera, number, most=most) for number, (camera, most) in enumerate(arrivals)]
    for frame in put:
        waiting.put(frame)
    waiting.end()
    taken: list[CapturedFrame] = []
    while batch := waiting.take():
        assert {frame.product for frame in batch} == {batch[0].product}
        assert len(batch) <= batch[0].product.max_batch
        taken += batch
    assert taken == put
