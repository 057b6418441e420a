"""The good images with the highest scores, and where in them the engine saw something."""

import base64
import heapq
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Frame, Size
from pictures.heatmap import MapGeometry, overlay
from pictures.tile_merge import TileMerge

_MOST: Final = 6
_SIDE: Final = 240
"""Longer side of a picture on the page, in pixels."""
_QUALITY: Final = 85


class Picture(NamedTuple):
    """One of them."""

    place: int
    """Among the good images."""
    score: float
    frame: str
    """As the engine saw it, and below with its heat map: JPEG as a data: address."""
    heat: str


class _Kept(NamedTuple):
    score: float
    place: int
    frame: Frame
    anomaly_map: NDArray[np.float32]


class Highest:
    """Keeps the frames and maps of the highest scores while images go by."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._seen = 0

    def look(self, frame: Frame, score: float, anomaly_map: NDArray[np.float32]) -> None:
        """See the next image: what the engine was given, its score, and its h×w map."""
        index, self._seen = self._seen, self._seen + 1
        if len(self._kept) < _MOST:
            heapq.heappush(self._kept, _Kept(score, index, frame.copy(), anomaly_map.copy()))
        elif score > self._kept[0].score:
            heapq.heapreplace(self._kept, _Kept(score, index, frame.copy(), anomaly_map.copy()))

    def pictures(self, geometry: MapGeometry, merge: TileMerge | None, threshold: float) -> list[Picture]:
        """Draw them, highest score first.

        Args:
            geometry: how a map lies over what was seen.
            merge: of the tiles; None where a picture is one frame.
            threshold: above which a heat map has a contour.
        """
        drawn = []
        for score, index, frame, anomaly_map in sorted(self._kept, reverse=True, key=lambda kept: kept[:2]):
            seen = frame if merge is None else merge.grid.assemble(frame)
            lying = geometry.at(Size(*seen.shape[:2]))
            heat = overlay(seen, lying.spread(anomaly_map), threshold)
            drawn.append(Picture(index, score, _data(seen), _data(heat)))
        return drawn


def _data(picture: Frame) -> str:
    """Give a small picture as an address that holds it."""
    height, width = picture.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
