import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score

from calibration.ranking import Ranking
from models.datasets.masks import Region
from models.metrics.bootstrap import estimate, stratified_weights
from models.metrics.pixel import PixelCurves, thresholds

unhurried = settings(deadline=None)  # other work on the same cores is not a failure

Maps = NDArray[np.float32]
EXACT = 1_000_000
"""More levels than the maps below have values: every one becomes a threshold."""


def ones(count: int) -> NDArray[np.float64]:
    return np.ones((1, count))


@st.composite
def scored(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    count = draw(st.integers(2, 40))
    scores = draw(arrays(np.float64, count, elements=st.integers(-4, 4).map(lambda n: n / 4)))
    defective = draw(arrays(np.bool_, count).filter(lambda kinds: kinds.any() and not kinds.all()))
    weights = draw(arrays(np.float64, count, elements=st.integers(0, 3)))
    weights[[int(defective.argmax()), int(defective.argmin())]] += 1  # one of each kind at least
    return scores, defective, weights


@unhurried
@given(scored())
def test_image_auroc_is_that_of_scikit_learn(
    given_: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]],
) -> None:
    scores, defective, weights = given_
    ranking = Ranking(scores, defective)
    assert ranking.auroc(ones(len(scores)))[0] == pytest.approx(roc_auc_score(defective, scores))
    expected = roc_auc_score(defective, scores, sample_weight=weights)
    assert ranking.auroc(weights[None])[0] == pytest.approx(expected)


@unhurried
@given(scored())
def test_no_threshold_has_a_better_f1_than_the_best(
    given_: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]],
) -> None:
    scores, defective, _ = given_
    best = Ranking(scores, defective).best_f1(ones(len(scores)))
    assert best.f1[0] == pytest.approx(f1_score(defective, scores > best.threshold[0]))
    others = []
    for threshold in {-math.inf, *scores.tolist()}:
        true = int((defective & (scores > threshold)).sum())
        others.append(2 * true / (int((scores > threshold).sum()) + int(defective.sum())))
    assert best.f1[0] == pytest.approx(max(others))


def test_a_group_without_good_or_defective_images_has_no_auroc() -> None:
    ranking = Ranking(np.array([1.0, 2.0]), np.array([True, False]))
    assert np.isnan(ranking.auroc(np.array([[1.0, 0.0], [0.0, 1.0]]))).all()


@st.composite
def marked_maps(draw: st.DrawFn) -> tuple[list[Maps], list[NDArray[np.bool_]]]:
    count = draw(st.integers(1, 4))
    shape = (draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    values = st.integers(0, draw(st.sampled_from((3, 200)))).map(lambda n: n / 8)
    maps = [draw(arrays(np.float32, shape, elements=values)) for _ in range(count)]
    masks = [draw(arrays(np.bool_, shape)) for _ in range(count)]
    masks[0].flat[0], masks[0].flat[-1] = True, False
    return maps, masks


def connected(mask: NDArray[np.bool_]) -> list[Region]:
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    parts = [labels == label for label in range(1, count + 1)]
    return [Region.of(part) for part in parts]


def curves(maps: list[Maps], regions: list[list[Region]], levels: int) -> PixelCurves:
    made = PixelCurves(thresholds(np.concatenate([one.ravel() for one in maps]), levels))
    for one, found in zip(maps, regions, strict=True):
        made.add(one, found)
    return made


def literal_area(maps: list[Maps], regions: list[list[Region]], limit: float) -> float:
    """AU-sPRO as it is defined, one threshold and one region at a time."""
    points = [(0.0, 0.0)]
    for threshold in sorted({float(value) for one in maps for value in one.flat}, reverse=True):
        false = clean = 0
        overlaps = []
        for one, found in zip(maps, regions, strict=True):
            positive = one >= threshold
            defective = np.zeros(one.shape, dtype=bool)
            for region in found:
                defective |= region.pixels
                overlaps.append(min(1.0, (positive & region.pixels).sum() / region.saturation))
            false += int((positive & ~defective).sum())
            clean += int((~defective).sum())
        points.append((false / clean, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)  # noqa: PLW2901
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@unhurried
@given(marked_maps(), st.sampled_from((0.05, 0.3, 1.0)))
def test_au_pro_is_that_of_the_definition(
    given_: tuple[list[Maps], list[NDArray[np.bool_]]], limit: float
) -> None:
    maps, masks = given_
    regions = [connected(mask) for mask in masks]
    found = curves(maps, regions, EXACT).au_pro(ones(len(maps)), limit).values[0]
    assert found == pytest.approx(literal_area(maps, regions, limit), abs=1e-6)


@unhurried
@given(marked_maps(), st.sampled_from((0.05, 0.3, 1.0)), st.data())
def test_au_spro_is_that_of_the_definition(
    given_: tuple[list[Maps], list[NDArray[np.bool_]]], limit: float, data: st.DataObject
) -> None:
    """Defects that overlap, are not connected, and saturate at any part of their area."""
    maps, masks = given_
    regions: list[list[Region]] = []
    for mask in masks:
        other = data.draw(arrays(np.bool_, mask.shape))
        parts = [part for part in (mask, mask & other) if part.any()]
        regions.append([Region.of(part, data.draw(st.integers(1, int(part.sum())))) for part in parts])
    found = curves(maps, regions, EXACT).au_pro(ones(len(maps)), limit).values[0]
    assert found == pytest.approx(literal_area(maps, regions, limit), abs=1e-6)


@unhurried
@given(marked_maps(), st.integers(2, 12), st.sampled_from((0.05, 0.3, 1.0)))
def test_few_thresholds_are_wrong_by_no_more_than_they_say(
    given_: tuple[list[Maps], list[NDArray[np.bool_]]], levels: int, limit: float
) -> None:
    maps, masks = given_
    regions = [connected(mask) for mask in masks]
    areas = curves(maps, regions, levels).au_pro(ones(len(maps)), limit)
    exact = literal_area(maps, regions, limit)
    assert abs(areas.values[0] - exact) <= areas.errors[0] + 1e-6


@unhurried
@given(marked_maps())
def test_pixel_auroc_is_that_of_scikit_learn(given_: tuple[list[Maps], list[NDArray[np.bool_]]]) -> None:
    maps, masks = given_
    found = curves(maps, [connected(mask) for mask in masks], EXACT).auroc(ones(len(maps))).values[0]
    assert found == pytest.approx(roc_auc_score(np.ravel(masks), np.ravel(maps)), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(marked_maps(), st.data())
def test_weights_are_copies_of_images(
    given_: tuple[list[Maps], list[NDArray[np.bool_]]], data: st.DataObject
) -> None:
    maps, masks = given_
    regions = [connected(mask) for mask in masks]
    weights = [1 + data.draw(st.integers(0, 2)), *(data.draw(st.integers(0, 3)) for _ in maps[1:])]
    weighted = curves(maps, regions, EXACT).au_pro(np.array([weights], dtype=np.float64), 0.3).values[0]
    copies = [index for index, weight in enumerate(weights) for _ in range(weight)]
    literal = literal_area([maps[index] for index in copies], [regions[index] for index in copies], 0.3)
    assert weighted == pytest.approx(literal, abs=1e-6)


def test_known_areas() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[2:6, 2:6] = mask[10:15, 10:15] = True

    def pro(values: NDArray[Any], regions: list[Region]) -> float:
        one = values.astype(np.float32)
        return float(curves([one], [regions], EXACT).au_pro(ones(1), 0.3).values[0])

    both = connected(mask)
    assert len(both) == 2
    assert pro(mask, both) == 1
    assert pro(~mask, both) == pytest.approx(0)
    assert pro(np.zeros((20, 20)), both) == pytest.approx(0.15)  # the diagonal, up to 0.3
    # One of two defects found whole, without a false positive; the rest along a line to (1, 1).
    one_found = mask.copy()
    one_found[10:] = False
    assert pro(one_found, both) == pytest.approx(0.5 + 0.5 * 0.15)
    # A fifth of a defect found is all of it where it saturates there.
    part = np.zeros((20, 20), dtype=np.bool_)
    part[10, 10:15] = True
    whole = mask.copy()
    whole[:10] = False
    assert pro(part, [Region.of(whole, 5)]) == 1
    assert pro(part, [Region.of(whole, 25)]) == pytest.approx(0.2 + 0.8 * 0.15)


def test_regions_count_alike_whatever_their_size() -> None:
    values = np.zeros((1, 200), dtype=np.float32)
    small, large = np.zeros((2, 1, 200), dtype=np.bool_)
    small[0, 0], large[0, 50:150] = True, True
    values[0, 0] = 1
    made = curves([values], [[Region.of(small, 1), Region.of(large, 100)]], EXACT)
    assert made.au_pro(ones(1), 0.3).values[0] == pytest.approx(0.5 + 0.5 * 0.15)


def test_thresholds_follow_the_values_and_keep_their_ends() -> None:
    values = np.random.default_rng(0).lognormal(size=(50, 40, 40)).astype(np.float32)
    chosen = thresholds(values, 500)
    assert len(chosen) <= 500
    assert (np.diff(chosen) > 0).all()
    assert (chosen[0], chosen[-1]) == (values.min(), values.max())
    above = (values > chosen[-100]).mean()
    assert above < 0.05  # a fifth of the thresholds in the highest twentieth
    assert np.array_equal(thresholds(values[:1], EXACT), np.unique(values[0]))


def test_real_sized_maps_are_right_to_the_fourth_decimal() -> None:
    """Five thousand thresholds against all of them, where there are many more values."""
    random = np.random.default_rng(1)
    maps, regions = [], []
    for index in range(6):
        one = ndimage.gaussian_filter(random.normal(size=(160, 160)), 4).astype(np.float32)
        mask = np.zeros(one.shape, dtype=np.bool_)
        if index % 2:
            mask[40 : 60 + index, 30:90] = True
            one[mask] += 0.03
        maps.append(one)
        regions.append(connected(mask))
    few = curves(maps, regions, 5000)
    all_values = curves(maps, regions, EXACT)
    for measured, exact in (
        (few.au_pro(ones(6), 0.3), all_values.au_pro(ones(6), 0.3)),
        (few.auroc(ones(6)), all_values.auroc(ones(6))),
    ):
        assert abs(measured.values[0] - exact.values[0]) < 2e-5
        assert measured.errors[0] < 1e-3


def test_drawn_test_sets_keep_their_strata_and_their_seed() -> None:
    strata = ["good"] * 7 + ["scratch"] * 3 + ["dent"]
    weights = stratified_weights(strata, 200, seed=4)
    assert weights.shape == (200, 11)
    assert (weights[:, :7].sum(1) == 7).all()
    assert (weights[:, 7:10].sum(1) == 3).all()
    assert (weights[:, 10] == 1).all()
    assert np.array_equal(weights, stratified_weights(strata, 200, seed=4))
    assert not np.array_equal(weights, stratified_weights(strata, 200, seed=5))
    assert weights[:, :7].std(0).min() > 0.5


def test_intervals_hold_the_true_auroc_about_as_often_as_they_say() -> None:
    """Normal scores a deviation apart: the true AUROC is Φ(1/√2) = 0.760."""
    random = np.random.default_rng(7)
    defective = np.arange(80) >= 40
    held = 0
    for trial in range(100):
        ranking = Ranking(random.normal(defective.astype(float)), defective)
        drawn = ranking.auroc(stratified_weights(["d" if kind else "g" for kind in defective], 200, trial))
        found = estimate(float(ranking.auroc(ones(80))[0]), drawn)
        assert found.interval is not None
        held += found.interval.low <= 0.7602 <= found.interval.high
    assert 86 <= held <= 100


def test_intervals_are_absent_where_nothing_was_drawn() -> None:
    assert estimate(0.5, np.array([])).interval is None
    assert estimate(0.5, np.array([np.nan, 0.5])).interval == (0.5, 0.5)
