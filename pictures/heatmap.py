"""Where a value of an anomaly map lies in the frame, and how it is shown to a person."""

import re
from collections.abc import Mapping
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import EngineRefused
from pictures.frames import Frame, Size

MAP_STRIDE = "map_stride"
"""Key of the model's metadata: frame pixels from one value of the anomaly map to the next."""

HIGHEST_VALUE = "map_highest_value"
"""Key of the model's metadata: the limit that no value of the map before normalisation can exceed, if any."""


class MapGeometry(NamedTuple):
    """How an anomaly map lies over its frame.

    A network without padding looks at a margin around every value of its map, so the map covers the middle
    of the frame only: value (row, column) is centred on frame pixel ``margin + (row + ½) · stride``.
    """

    frame: Size
    map: Size
    stride: tuple[float, float]

    @classmethod
    def of(cls, frame: Size, map_size: Size, metadata: Mapping[str, str]) -> Self:
        """Read the geometry from a model's metadata; a model that names no stride covers its whole frame.

        Raises:
            EngineRefused: the stride that it names is not a positive number.
        """
        named = metadata.get(MAP_STRIDE)
        if named is not None:
            if not re.fullmatch(r"[1-9]\d{0,3}", named):
                raise EngineRefused(f"the model's metadata: {MAP_STRIDE} is {named!r:.40}; expected pixels")
            return cls(frame, map_size, (float(named), float(named)))
        return cls(frame, map_size, (frame.height / map_size.height, frame.width / map_size.width))

    def at(self, size: Size) -> Self:
        """Give the geometry of the same map over the same frame, resized to another height and width."""
        return self._replace(
            frame=size,
            stride=(
                self.stride[0] * size.height / self.frame.height,
                self.stride[1] * size.width / self.frame.width,
            ),
        )

    @property
    def margin(self) -> tuple[float, float]:
        """Frame pixels above and left of the area that the map covers."""
        return (
            (self.frame.height - self.map.height * self.stride[0]) / 2,
            (self.frame.width - self.map.width * self.stride[1]) / 2,
        )

    def peak(self, anomaly_map: NDArray[np.float32]) -> tuple[float, float]:
        """Give the frame's pixel (x, y) on which the largest value of an h×w anomaly map is centred."""
        row, column = divmod(int(anomaly_map.argmax()), self.map.width)
        top, left = self.margin
        return left + (column + 0.5) * self.stride[1], top + (row + 0.5) * self.stride[0]

    def spread(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spread an h×w anomaly map over its frame: H×W float32, the margin continues the map's edge."""
        down, right = self.stride
        top, left = self.margin
        frame_from_map = np.array(
            [[right, 0, left + right / 2 - 0.5], [0, down, top + down / 2 - 0.5]], dtype=np.float64
        )
        heat: NDArray[np.float32] = cv2.warpAffine(
            anomaly_map.astype(np.float32),
            frame_from_map,
            (self.frame.width, self.frame.height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).astype(np.float32, copy=False)
        return heat


def overlay(frame: Frame, heat: NDArray[np.float32], threshold: float) -> Frame:
    """Lay the heat of a spread anomaly map over its frame.

    Nothing is tinted below half the threshold; the tint is full at twice the threshold, so that pictures of
    different parts can be compared. The contour encloses what lies above the threshold.

    Args:
        frame: H×W×3 uint8, BGR.
        heat: H×W float32, from ``MapGeometry.spread``.
        threshold: the reject threshold, in the unit of the score.

    Returns:
        H×W×3 uint8, BGR.
    """
    level = np.clip((heat - 0.5 * threshold) / (1.5 * abs(threshold) + 1e-12), 0, 1)
    tint = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = (0.75 * level)[..., None]
    shown: Frame = (frame * (1 - weight) + tint * weight).astype(np.uint8)
    contours, _ = cv2.findContours(
        (heat > threshold).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(shown, contours, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return shown


def shaded(frame: Frame, looks: NDArray[np.bool_], geometry: MapGeometry) -> Frame:
    """Darken what a mask does not look at, in a frame or an overlay of it.

    Args:
        frame: H×W×3 uint8, BGR.
        looks: h×w, the cells of the map that are looked at.
        geometry: of the map over that frame.

    Returns:
        H×W×3 uint8, BGR.
    """
    seen = geometry.spread(looks.astype(np.float32))
    dark: Frame = (frame * (0.35 + 0.65 * seen)[..., None]).astype(np.uint8)
    return dark
