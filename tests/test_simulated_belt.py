"""A free-running camera over a belt with parts at random times and places, and the truth about it."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from daemon.capture.drivers import CameraSettings, Picture
from daemon.capture.drivers.open import open_camera
from daemon.capture.drivers.simulated import Part
from daemon.capture.drivers.simulated.traffic import Traffic
from foundation.errors import InputError


def pictures(source: str, count: int, first_frame: int = 1) -> list[Picture]:
    camera = open_camera(CameraSettings(source), first_frame=first_frame)
    grabbed = [camera.grab() for _ in range(count)]
    camera.close()
    return [picture for picture in grabbed if picture is not None]


def traffic(**changes: object) -> Traffic:
    values = {"width": 320, "height": 240, "diameter": 64, "speed": 12, "stops": 0.1, "parts": 300} | changes
    return Traffic(5, halt=None, **values)  # type: ignore[arg-type]


def test_parts_never_touch_and_each_is_seen_whole() -> None:
    belt = traffic()
    speeds, whole, most, empty = [], set(), 0, 0
    while belt.advance():
        speeds.append(belt.speed)
        whole |= {part.index for part in belt.in_view if belt.is_whole(part)}
        most = max(most, len(belt.in_view))
        empty += not belt.in_view
        places = np.array([(belt.x(part), part.y) for part in belt.in_view])
        for at, place in enumerate(places):
            others = np.delete(places, at, axis=0)
            assert (np.hypot(*(others - place).T) > 64).all()
    assert whole == set(range(300))
    assert most >= 4 and empty > 50
    assert 0.02 < np.mean(np.array(speeds) == 0) < 0.3
    assert max(speeds) > 1.2 * 12


def test_frames_do_not_depend_on_where_the_camera_began() -> None:
    source = "simulated://belt?seed=3&defects=0.5"
    whole, later = pictures(source, 100), pictures(source, 20, first_frame=81)
    assert all((one.pixels == other.pixels).all() for one, other in zip(whole[80:], later, strict=True))
    assert whole[99][1:] == later[19][1:]
    assert not whole[10].parts and whole[10].part is None  # the belt is empty first


def test_the_truth_says_where_each_part_was(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    seen: dict[int, list[int]] = {}
    source = f"simulated://belt?seed=3&parts=12&defects=0.5&stops=0&truth={truth}"
    for number, picture in enumerate(pictures(source, 2000), 1):
        for text, box in picture.parts:
            part = Part.parse(text)
            seen.setdefault(part.index, []).append(number)
            inside = picture.pixels[box.y : box.y + box.height, box.x : box.x + box.width]
            if box.width == 65:  # metal on rubber
                assert inside.mean() > 2 * np.median(picture.pixels)
    written = [json.loads(line) for line in truth.read_text().splitlines()]
    assert sorted(entry["part"] for entry in written) == list(range(12))
    for entry in written:
        assert entry["seen"] == [seen[entry["part"]][0], seen[entry["part"]][-1]]
        assert entry["seen"][0] < entry["whole"][0] <= entry["whole"][1] < entry["seen"][1]


def test_a_halt_keeps_a_part_in_the_middle() -> None:
    grabbed = pictures("simulated://belt?seed=3&halt=90", 400)
    boxes = [dict(picture.parts) for picture in grabbed]
    still = [one == other != {} for one, other in pairwise(boxes)]
    assert sum(still) >= 98


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("sped=3", "unknown option sped; expected one of seed"),
        ("speed=fast", "speed is 'fast'; expected a number"),
        ("speed=300", "speed: found 300; expected above 0, and at most 255"),
        ("diameter=20", "diameter: found 20; expected 55 to 230"),
        ("width=20", "width: found 20"),
        ("stops=1", "stops: found 1"),
        ("parts=0", "parts: found 0; expected 1 or more"),
        ("kinds=odd", "kinds: found 'odd'"),
        ("truth=/nowhere/truth", "truth: /nowhere/truth cannot be written"),
        ("trouble=black", "trouble: found 'black'"),
    ],
)
def test_bad_options_are_one_line(options: str, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        open_camera(CameraSettings(f"simulated://belt?{options}"))
    assert str(refused.value).startswith("simulated://belt?") and expected in str(refused.value)
