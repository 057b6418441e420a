import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures.frames import Size
from pictures.heatmap import MapGeometry, overlay

PDN = MapGeometry(Size(256, 256), Size(56, 56), (4.0, 4.0))
WHOLE = MapGeometry(Size(64, 96), Size(8, 8), (8.0, 12.0))


def test_an_unpadded_map_lies_in_the_middle_of_its_frame() -> None:
    assert PDN.margin == (16, 16)
    first = np.zeros((56, 56), np.float32)
    first[0, 0] = 1
    assert PDN.peak(first) == (18, 18)
    assert WHOLE.margin == (0, 0)


@given(st.sampled_from([PDN, WHOLE]), st.data())
def test_heat_is_highest_where_the_peak_is(geometry: MapGeometry, data: st.DataObject) -> None:
    row = data.draw(st.integers(1, geometry.map.height - 2))
    column = data.draw(st.integers(1, geometry.map.width - 2))
    anomaly_map = np.zeros(geometry.map, np.float32)
    anomaly_map[row, column] = 1
    x, y = geometry.peak(anomaly_map)
    heat = geometry.spread(anomaly_map)
    assert heat.shape == geometry.frame
    at = np.unravel_index(heat.argmax(), heat.shape)
    assert at == pytest.approx((y, x), abs=1)
    assert heat.max() > 0.7


@given(st.sampled_from([PDN, WHOLE]), st.integers(1, 2000), st.integers(1, 2000), st.data())
def test_a_resized_frame_has_its_peak_at_the_resized_place(
    geometry: MapGeometry, height: int, width: int, data: st.DataObject
) -> None:
    anomaly_map = np.zeros(geometry.map, np.float32)
    anomaly_map.flat[data.draw(st.integers(0, anomaly_map.size - 1))] = 1
    x, y = geometry.peak(anomaly_map)
    resized = geometry.at(Size(height, width))
    assert resized.frame == (height, width)
    assert resized.peak(anomaly_map) == pytest.approx(
        (x * width / geometry.frame.width, y * height / geometry.frame.height)
    )


def test_only_what_is_suspect_is_tinted() -> None:
    frame = np.full((64, 96, 3), 90, np.uint8)
    calm = overlay(frame, np.full((64, 96), 0.1, np.float32), threshold=0.5)
    assert (calm == frame).all()
    heat = np.zeros((64, 96), np.float32)
    heat[20:40, 30:60] = 2.0
    shown = overlay(frame, heat, threshold=0.5)
    assert (shown[:10] == frame[:10]).all()
    assert (shown[30, 45] != frame[30, 45]).any()
    assert (shown[19:22, 45].max(axis=0) > 200).all()  # the contour
