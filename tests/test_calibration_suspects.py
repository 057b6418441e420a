"""Defects among the good images, in drawn scores and in those of real parts.

``scores_of_parts.json`` holds what ``calibrate`` measured on held-out images of good parts and on defective
ones, rounded: PaDiM trained on 60 images of MVTec AD's bottle and tile, 20 of toothbrush and 25 of aliens,
and EfficientAD XS after 300 steps on 60 of bottle, whose scores have a heavy tail.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from calibration.suspects import suspects

Floats = NDArray[np.float64]
PARTS: dict[str, dict[str, list[float]]] = json.loads(
    (Path(__file__).parent / "scores_of_parts.json").read_text()
)
HONEST = {
    "uniform": stats.uniform(),
    "normal": stats.norm(1, 0.2),
    "gamma": stats.gamma(4),
    "exponential": stats.expon(),
    "lognormal": stats.lognorm(0.5),
    "heavy tail": stats.genpareto(0.2),
}


def test_defects_among_the_good_images_are_suspected() -> None:
    scores = np.random.default_rng(1).gumbel(1, 0.1, size=150)
    assert suspects(scores) == []
    scores[[10, 70]] = 4.0, 5.0
    assert suspects(scores) == [70, 10]


def test_the_unit_of_the_scores_does_not_matter() -> None:
    scores = np.random.default_rng(2).gamma(4, size=109)
    scores[[3, 7, 50]] = 60.0, 80.0, 100.0
    assert suspects(scores) == suspects(scores * 1e-3 - 7) == suspects(scores * 1e6) == [50, 7, 3]


@pytest.mark.parametrize(
    "scores", [np.zeros(30), np.arange(20.0), np.repeat([1.0, 2.0], 30), np.arange(21.0)]
)
def test_scores_that_say_nothing(scores: Floats) -> None:
    assert suspects(scores) == []


@pytest.mark.parametrize("defects", [1, 2, 5, 8])
def test_defects_do_not_hide_each_other(defects: int) -> None:
    random = np.random.default_rng(defects)
    named, falsely = 0, 0
    for _ in range(20):
        good = random.gamma(4, 0.02, size=109)
        found = np.array(suspects(np.concatenate([good, good.max() * random.uniform(3, 8, size=defects)])))
        named += int(np.count_nonzero(found >= 109))
        falsely += int(np.count_nonzero(found < 109))
    assert named >= 0.95 * 20 * defects
    assert falsely <= 2


def apart(parts: str) -> Floats:
    """Give scores of defects three times as far above the good median as the highest good score."""
    good, bad = (np.array(PARTS[parts][kind]) for kind in ("good", "defective"))
    return bad[bad > good.max() + 2 * (good.max() - np.median(good))]


# Of some 30 good scores one or two high ones may be the tail's; tile has no defect that stands apart.
@pytest.mark.parametrize(
    ("parts", "defects"),
    [
        (parts, defects)
        for parts, content in PARTS.items()
        for defects in (2, 5, 8)
        if len(apart(parts)) >= defects and (defects > 2 or len(content["good"]) > 60)
    ],
)
def test_all_defective_parts_that_stand_apart_are_named(parts: str, defects: int) -> None:
    random = np.random.default_rng(defects)
    good = np.array(PARTS[parts]["good"])
    for _ in range(5):
        some = random.choice(good, min(109, len(good)), replace=False)
        scores = np.concatenate([some, random.choice(apart(parts), defects, replace=False)])
        assert sorted(suspects(scores)) == list(range(len(some), len(scores)))


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("count", [21, 40, 109, 300])
def test_honest_sets_are_rarely_suspected(name: str, count: int) -> None:
    random = np.random.default_rng(0)
    sets = HONEST[name].rvs(size=(100, count), random_state=random)
    # Once in twenty would be seen ten times or less in all but one of a hundred trials.
    assert sum(bool(suspects(scores)) for scores in sets) <= stats.binom(100, 0.05).ppf(0.99)


@pytest.mark.parametrize("parts", PARTS)
def test_good_parts_are_rarely_suspected(parts: str) -> None:
    random = np.random.default_rng(0)
    good = np.sort(PARTS[parts]["good"])
    # Tile has a good image that scores 0.6 where the next one scores 0.22: it is rightly shown to somebody.
    good = good[:-1] if parts == "PaDiM on tile" else good
    sizes = [25, len(good) * 2 // 3, min(109, len(good) - 1)]
    draws = [random.choice(good, size, replace=False) for size in sizes for _ in range(10)]
    assert sum(bool(suspects(draw)) for draw in draws) <= 1
