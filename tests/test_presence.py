"""Exactly one picture of each part of a free-running stream, and none of what is no part."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from daemon.capture.choice import Missed, Taken
from daemon.capture.drivers import CameraSettings, Picture, Present
from daemon.capture.drivers.open import open_camera
from daemon.capture.presence.presence import Presence
from pictures.frames import Frame, Roi

PERIOD_NS = 33_333_333


class Seen:
    """What presence made of a stream."""

    def __init__(self, stream: Iterator[Picture], roi: Roi | None = None, **present: float) -> None:
        settings = CameraSettings("nowhere", roi=roi, present=Present(**present))
        self.presence = Presence(settings, settings.present or Present())
        self.taken: list[Taken] = []
        self.missed: list[Missed] = []
        self.decided: list[int] = []
        """Number of the picture at which each was decided, from 1."""
        number = 0
        for number, picture in enumerate(stream, 1):
            self._note(self.presence.look(picture, number * PERIOD_NS), number)
        self._note(self.presence.finish(number * PERIOD_NS), number)

    def _note(self, outcomes: list[Taken | Missed], number: int) -> None:
        for outcome in outcomes:
            self.decided.append(number)
            if isinstance(outcome, Taken):
                self.taken.append(outcome)
            else:
                self.missed.append(outcome)

    @property
    def parts(self) -> Counter[str]:
        return Counter(str(taken.part).split()[0] for taken in self.taken)


def belt(options: str) -> Iterator[Picture]:
    camera = open_camera(CameraSettings(f"simulated://belt?{options}"))
    while (picture := camera.grab()) is not None:
        yield picture
    camera.close()


def once(count: int) -> Counter[str]:
    return Counter(f"{index:06d}" for index in range(count))


SIZE = (120, 160)


def drawn(
    places: list[tuple[float, ...] | None],
    *,
    size: tuple[int, int] = (40, 30),
    light: Callable[[int], float] = lambda number: 1.0,
    seed: int = 0,
) -> Iterator[Picture]:
    """Bright rectangles of one size with their middles at (x, y) pairs, on a grey belt with noise."""
    rng = np.random.default_rng(seed)
    height, width = size
    for number, place in enumerate(places):
        pixels = np.full((*SIZE, 3), 60, np.float32)
        for x, y in zip((place or ())[::2], (place or ())[1::2], strict=True):
            left, top = round(x - width / 2), round(y - height / 2)
            pixels[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = 180
        lit = pixels * light(number) + rng.normal(0, 2, pixels.shape)
        yield Picture(lit.clip(0, 255).astype(np.uint8), None)


EMPTY: list[tuple[float, ...] | None] = [None] * 30


def crossing(step: float, y: float = 60) -> list[tuple[float, ...] | None]:
    """One part from the left border to beyond the right one."""
    return [(x, y) for x in np.arange(-15, 180, step)]


@pytest.mark.parametrize("options", ["seed=11&parts=60&defects=0.5", "seed=12&parts=40&speed=40&stops=0.3"])
def test_each_part_of_a_belt_is_taken_once_near_the_middle(options: str) -> None:
    seen = Seen(belt(options))
    assert seen.parts == once(int(options.split("parts=")[1].split("&", maxsplit=1)[0]))
    assert not seen.missed
    for taken in seen.taken:
        box = dict(taken.picture.parts)[str(taken.part)]
        assert box.width == 65  # whole
        assert abs(box.x + box.width / 2 - 160) < 45
    assert seen.presence.empty > 40
    assert seen.presence.speed is not None and seen.presence.speed[0] > 100


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_the_belt_may_run_in_any_direction(turn: int) -> None:
    def turned(frame: Frame) -> Frame:
        return np.ascontiguousarray(np.rot90(frame, turn))

    stream = (Picture(turned(picture.pixels), None) for picture in belt("seed=13&parts=12&stops=0"))
    seen = Seen(stream)
    assert len(seen.taken) == 12 and not seen.missed
    x, y = seen.presence.speed or (0.0, 0.0)
    assert {1: y < -100, 2: x < -100, 3: y > 100}[turn]


def test_the_speed_is_that_of_the_belt() -> None:
    seen = Seen(drawn(EMPTY + crossing(6) + EMPTY))
    assert seen.presence.speed == pytest.approx((6 / 0.033333333, 0.0), abs=4)


def test_of_pictures_near_the_middle_the_sharpest_is_taken() -> None:
    import cv2

    places = EMPTY + crossing(4)
    sharp = min(range(len(places)), key=lambda at: abs((places[at] or (999,))[0] - 76))

    def stream() -> Iterator[Picture]:
        for number, picture in enumerate(drawn(places)):
            if number != sharp:
                blurred = np.asarray(cv2.GaussianBlur(picture.pixels, (9, 9), 3))
                yield picture._replace(pixels=blurred, part=str(number))
            else:
                yield picture._replace(part=str(number))

    seen = Seen(stream())
    assert [taken.part for taken in seen.taken] == [str(sharp)]


def test_it_is_decided_when_the_part_has_come_to_the_middle() -> None:
    places = EMPTY + crossing(5)
    middle = next(at for at, place in enumerate(places) if place and place[0] >= 80)
    seen = Seen(drawn(places))
    assert len(seen.taken) == 1
    assert middle <= seen.decided[0] - 1 <= middle + 2


@pytest.mark.parametrize("at", [30.0, 82.0, 120.0])
def test_a_belt_that_stops_with_a_part_in_view_gives_one_verdict(at: float) -> None:
    way = crossing(5)
    stop = next(index for index, place in enumerate(way) if place and place[0] >= at)
    standing = [way[stop]] * 300
    seen = Seen(drawn(EMPTY + way[:stop] + standing + way[stop:] + EMPTY + crossing(5)))
    assert len(seen.taken) == 2 and not seen.missed
    # The picture is fresh when its part is decided about, so that no deadline is over.
    assert seen.decided[0] * PERIOD_NS - seen.taken[0].captured_ns < 0.2e9


def test_what_is_no_part_is_not_taken() -> None:
    specks: list[tuple[float, ...] | None] = [(x, 60.0) for x in np.arange(-3, 170, 5).tolist()]
    seen = Seen(drawn(EMPTY + specks, size=(5, 5)))
    assert not seen.taken and not seen.missed
    assert seen.presence.empty == seen.presence.pictures == len(EMPTY) + len(specks)
    lamp = Seen(drawn([*EMPTY * 10], light=lambda number: 1 + 0.3 * np.sin(number / 15)))
    assert not lamp.taken and not lamp.missed


def test_a_part_that_is_never_whole_is_a_fault() -> None:
    seen = Seen(drawn(EMPTY + crossing(5, y=5) + EMPTY))
    assert not seen.taken
    assert [missed.error for missed in seen.missed] == [
        "a part was seen and not taken: it was never whole in view"
    ]
    cut_off = Seen(drawn(EMPTY + crossing(5)[:4]))
    assert "the pictures ended before it was whole in view" in cut_off.missed[0].error


def test_parts_that_touch_are_a_fault_where_the_largest_size_is_known() -> None:
    pair = [(x, 40.0, x, 78.0) for x in np.arange(-15, 180, 5)]
    seen = Seen(drawn(EMPTY + pair + EMPTY + crossing(5)), max_area=0.08)
    assert len(seen.taken) == 1
    assert len(seen.missed) == 1 and "more than max_area 0.08: parts touch" in seen.missed[0].error


def test_parts_that_touch_for_a_while_are_taken_once_each() -> None:
    """Two parts side by side, which are seen as one for some pictures before the middle."""
    pair: list[tuple[float, ...] | None] = [
        (x, 34.0, x, 83.0 if 40 < x < 64 else 92.0) for x in np.arange(-15, 180, 4).tolist()
    ]
    seen = Seen(drawn(EMPTY + pair, size=(46, 30)))
    assert len(seen.taken) == 2 and not seen.missed


def test_the_lamp_goes_off_and_on_again() -> None:
    way = crossing(4)
    stop = 26  # past the middle: its picture has been taken
    places = EMPTY + way[:stop] + [way[stop]] * 60 + way[stop:] + EMPTY + crossing(4)
    off = range(len(EMPTY) + stop + 10, len(EMPTY) + stop + 40)
    seen = Seen(drawn(places, light=lambda number: 0.03 if number in off else 1.0))
    assert len(seen.taken) == 2
    assert [missed.error.split(":")[0] for missed in seen.missed] == ["dark"]
    assert seen.presence.trouble is None
    dark = Seen(drawn(EMPTY, light=lambda number: 0.03))
    assert len(dark.missed) == 1 and "lamp is off" in dark.presence.state


def test_another_light_is_learned_and_told() -> None:
    places = EMPTY + [None] * 60 + crossing(5)
    seen = Seen(drawn(places, light=lambda number: 1.0 if number < 40 else 2.6))
    assert len(seen.taken) == 1
    assert ["background has changed" in missed.error for missed in seen.missed] == [True]
    assert seen.presence.trouble is None


def test_a_part_that_lay_there_when_the_background_was_learned_leaves_no_ghost() -> None:
    start: list[tuple[float, ...] | None] = [(60, 60)] * 30
    seen = Seen(drawn(start + [(x, 60) for x in np.arange(60, 180, 5)] + EMPTY + crossing(5)))
    assert len(seen.taken) + len(seen.missed) in {1, 2}
    assert "5" not in {str(taken.part) for taken in seen.taken}
    assert seen.presence.whole == [] and seen.taken[-1].captured_ns > 80 * PERIOD_NS


Places = list[tuple[float, ...] | None]

ROW = (-30.0, 30.0, 20.0, 80.0, 75.0, 32.0, 130.0, 85.0)
"""Four parts: one comes, three are in view."""


def ahead(row: tuple[float, ...], way: float) -> tuple[float, ...]:
    """The same parts after the belt has moved."""
    return tuple(value if at % 2 else value + way for at, value in enumerate(row))


def moving(row: tuple[float, ...], step: float) -> Places:
    return [ahead(row, way) for way in np.arange(step, 230, step).tolist()]


@pytest.mark.parametrize("step", [1.5, 5.0, 14.0])
@pytest.mark.parametrize("stands", [1, 12, 60])
def test_parts_that_lie_there_at_the_start_are_taken_once_each(step: float, stands: int) -> None:
    start: Places = [ROW] * stands
    seen = Seen(drawn(start + moving(ROW, step) + EMPTY + crossing(5)))
    assert len(seen.taken) == 5 and not seen.missed
    assert seen.presence.whole == []  # no ghost is left behind


def test_a_belt_that_is_indexed_from_the_start() -> None:
    places: Places = [ROW] * 40
    for halt in range(40, 240, 40):
        places += [ahead(ROW, way) for way in np.arange(halt - 35, halt + 1, 5).tolist()]
        places += [places[-1]] * 40
    seen = Seen(drawn(places + EMPTY))
    assert len(seen.taken) == 4 and not seen.missed


@pytest.mark.parametrize("per_picture", [0.05, 0.2, 2.0])
def test_the_light_rises_while_parts_come(per_picture: float) -> None:
    places = EMPTY + [(x, 34.0, x - 60, 83.0, x - 110, 40.0) for x in np.arange(-15, 420, 4).tolist()]
    seen = Seen(
        drawn(places + EMPTY, light=lambda number: 1 + min(1.6, max(0.0, per_picture * (number - 60))))
    )
    assert len(seen.taken) == 3
    assert ["background has changed" in missed.error for missed in seen.missed] == [True]
    assert seen.presence.trouble is None


def test_another_light_while_the_belt_stands_with_parts_in_view() -> None:
    way = moving(ROW, 4)
    stop = 18  # one part is past the middle and has its verdict, one lies short of it, one comes in
    places = EMPTY + way[:stop] + [way[stop]] * 70 + way[stop:]
    change = len(EMPTY) + stop + 20
    seen = Seen(drawn(places + EMPTY, light=lambda number: 1.0 if number < change else 2.6))
    assert len(seen.taken) == 4
    assert ["background has changed" in missed.error for missed in seen.missed] == [True]


def test_parts_that_pass_while_the_lamp_is_off_do_not_lend_their_verdict() -> None:
    def from_to(first: float, last: float) -> Places:
        return [(x, 60.0) for x in np.arange(first, last, 5).tolist()]

    before, gone = from_to(-20, 80), from_to(80, 205)
    off = range(len(EMPTY + before), len(EMPTY + before + gone))
    another: Places = [(90.0, 60.0)] * 20  # nearly where the first one was seen last
    places = EMPTY + before + gone + another + from_to(90, 190) + EMPTY
    seen = Seen(drawn(places, light=lambda number: 0.03 if number in off else 1.0))
    assert len(seen.taken) == 2


def test_pictures_that_are_too_many_to_be_kept_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.capture.presence.learning._MOST_KEPT_BYTES", 12 * 120 * 160 * 3)
    seen = Seen(drawn([ROW] * 20 + moving(ROW, 5) + EMPTY + crossing(5)))
    errors = [missed.error for missed in seen.missed]
    assert "parts may have gone by in" in errors[0]
    assert 2 <= len(seen.taken) < 5


def test_it_looks_in_the_region_of_interest_alone() -> None:
    beside = [(x, 20.0) for x in np.arange(-15, 180, 5)]
    roi = Roi(10, 50, 140, 70)
    seen = Seen(drawn(EMPTY + beside + EMPTY + crossing(5, y=85), size=(30, 30)), roi)
    assert len(seen.taken) == 1 and not seen.missed


def test_bolts_on_a_real_belt(shared_data: Path) -> None:
    camera = open_camera(CameraSettings(str(shared_data / "video" / "bolts-on-belt.gif")))
    seen = Seen(iter(camera.grab, None))
    assert len(seen.taken) == 1 and not seen.missed  # counted by hand: one bolt, in pictures 1 to 23
    assert 10 <= round(seen.taken[0].captured_ns / PERIOD_NS) - 1 <= 16  # it lies in the middle there
