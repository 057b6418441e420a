import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures.map_quantiles import map_quantiles


def good_maps(blank: float, value: float = 0.25) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Maps of which a share is one and the same value, larger than the rest."""
    maps = np.random.default_rng(0).uniform(0, 0.2, (4, 50, 50)).astype(np.float32)
    maps[:, : round(50 * blank)] = value
    return maps


def test_they_are_the_papers() -> None:
    maps = good_maps(0)
    np.testing.assert_array_equal(map_quantiles(maps), np.quantile(maps, (0.9, 0.995)).astype(np.float32))


@pytest.mark.parametrize("blank", [0.2, 0.6, 0.96])
def test_a_blank_background_divides_by_no_nothing(blank: float) -> None:
    maps = good_maps(blank)
    q_a, q_b = map_quantiles(maps)
    assert q_b == np.float32(0.25)
    assert q_a == pytest.approx(float(maps.mean(dtype=np.float64)))


@given(st.floats(0, 0.999), st.floats(0.25, 1e6, width=32))
def test_the_second_is_larger_unless_all_is_one_value(blank: float, value: float) -> None:
    q_a, q_b = map_quantiles(good_maps(blank, value))
    assert q_a < q_b or blank > 0.98


def test_of_one_value_they_are_that_value() -> None:
    np.testing.assert_array_equal(map_quantiles(np.full((2, 3, 3), 0.5, np.float32)), np.float32([0.5, 0.5]))
