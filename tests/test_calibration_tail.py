import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from calibration.detection import auroc, share_interval
from calibration.tail import (
    CONFIDENCE,
    TOLERATED_FACTOR,
    fit_threshold,
    scores_needed,
    tail_size,
)

DISTRIBUTIONS = {
    "normal": stats.norm(1, 0.2),
    "lognormal": stats.lognorm(0.5),
    "gamma": stats.gamma(2),
    "exponential": stats.expon(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("count", "rate"), [(60, 0.01), (200, 0.002), (1000, 0.001)])
def test_the_false_reject_rate_is_what_is_said(name: str, count: int, rate: float) -> None:
    """Simulated lines whose true false reject rate is known."""
    distribution = DISTRIBUTIONS[name]
    random = np.random.default_rng(2026)
    true_rates, held = [], 0
    for _ in range(60):
        threshold = fit_threshold(distribution.rvs(count, random_state=random), rate)
        true_rate = float(distribution.sf(threshold.value))
        true_rates.append(true_rate)
        held += threshold.rate_interval[0] <= true_rate <= threshold.rate_interval[1]
    # On average over lines not much more than was wanted; and no line is hopeless.
    assert np.mean(true_rates) < 1.5 * rate
    assert np.quantile(true_rates, 0.9) < 4 * rate
    # 60 trials at 0.9: 46 or fewer would be seen once in a thousand times.
    assert held >= stats.binom(60, CONFIDENCE).ppf(0.001)
    # The price in missed defects: the threshold is not far above the best one.
    best, median = distribution.isf(rate), distribution.median()
    highest = distribution.isf(np.median(true_rates)) - median
    assert highest < (1.4 if count < 1000 else 1.1) * (best - median)


def test_more_images_bring_the_threshold_to_the_true_quantile() -> None:
    scores = stats.expon().ppf((np.arange(20_000) + 0.5) / 20_000)
    threshold = fit_threshold(scores, 0.001)
    assert threshold.value == pytest.approx(stats.expon().isf(0.001), rel=0.02)
    assert threshold.rate_interval == pytest.approx((0.0007, 0.0014), abs=0.0002)
    assert threshold.enough_scores


def test_a_rate_inside_the_sample_is_close_to_the_empirical_quantile() -> None:
    scores = np.random.default_rng(0).gamma(2, size=2000)
    assert fit_threshold(scores, 0.1).value == pytest.approx(np.quantile(scores, 0.9), rel=0.03)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(20, 300),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
)
def test_the_unit_of_the_scores_does_not_matter(seed: int, count: int, shift: float, scale: float) -> None:
    scores = np.random.default_rng(seed).gamma(2, size=count)
    plain, moved = fit_threshold(scores, 0.001), fit_threshold(shift + scale * scores, 0.001)
    assert moved.value == pytest.approx(shift + scale * plain.value, rel=1e-5, abs=1e-5 * scale)
    assert moved.rate_interval == pytest.approx(plain.rate_interval, rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(20, 200))
def test_a_smaller_rate_never_lowers_the_threshold(seed: int, count: int) -> None:
    scores = np.random.default_rng(seed).normal(size=count)
    values = [fit_threshold(scores, rate).value for rate in (0.01, 0.003, 0.001, 0.0001)]
    assert values == sorted(values)


@pytest.mark.parametrize("rate", [0.01, 0.004])
def test_how_many_images_are_needed(rate: float) -> None:
    """With so many images the interval is about as narrow as it is said, whatever the images."""
    needed = scores_needed(rate)
    random = np.random.default_rng(0)
    for count, share in ((needed, 0.5), (4 * needed, 0.9)):
        sets = [fit_threshold(random.exponential(size=count), rate) for _ in range(20)]
        assert np.mean([found.rate_interval[1] <= 1.1 * TOLERATED_FACTOR * rate for found in sets]) >= share
    few = [fit_threshold(random.exponential(size=max(20, needed // 4)), rate) for _ in range(10)]
    assert not any(found.enough_scores for found in few)


def test_a_smaller_rate_needs_more_images() -> None:
    counts = [scores_needed(rate) for rate in (0.1, 0.01, 0.004, 0.001, 0.0001)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_scores_without_a_tail() -> None:
    with pytest.raises(ValueError, match="19 good scores; at least 20"):
        fit_threshold(np.arange(19.0), 0.001)
    with pytest.raises(ValueError, match="highest good scores are all 2"):
        fit_threshold(np.full(100, 2.0), 0.001)
    with_ties = np.repeat(np.arange(12.0), 5)
    assert fit_threshold(with_ties, 0.001).value > 11


def test_tail_size() -> None:
    assert [tail_size(count, 0.001) for count in (20, 60, 200, 1000)] == [10, 20, 44, 130]
    assert tail_size(10_000, 0.1) == 2000


@given(
    good=st.lists(st.integers(0, 8), min_size=1, max_size=40),
    defective=st.lists(st.integers(0, 8), min_size=1, max_size=40),
)
def test_auroc_is_that_of_scikit_learn(good: list[int], defective: list[int]) -> None:
    labels = [0] * len(good) + [1] * len(defective)
    expected = roc_auc_score(labels, good + defective)
    assert auroc(np.array(good, float), np.array(defective, float)) == pytest.approx(expected, abs=1e-12)


@given(count=st.integers(1, 300), share=st.floats(0, 1))
def test_the_share_interval_is_that_of_scipy(count: int, share: float) -> None:
    hits = round(share * count)
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert share_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)
