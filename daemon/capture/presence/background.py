from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Frame

Mask = NDArray[np.uint8]
"""H×W uint8: 255 where there is something, 0 where not."""

_PACE: Final = 0.05
_EVERY: Final = 4  # frames between two lessons
_LEAST_DEVIATION: Final = 1.0
_DEVIATIONS: Final = 5.0
_RING: Final = 2  # pixels at the border, which a whole part never covers
_COVERED: Final = 0.9  # of the ring: that is no part, but another background
_DARKER: Final = 0.3
_DARK: Final = 8.0
"""Grey level that the brightest hundredth of a lit picture is above."""
_BRIGHTEST: Final = 99.0


class Background:
    """What a camera sees where no part is: for each pixel its usual colour, and how much that varies.

    It follows slow changes where no part is, and the brightness of the lamp at once: that is measured at the
    picture's border, most of which no part covers. Pictures are small H×W×3 uint8.
    """

    def __init__(self, pictures: list[Frame], contrast: float) -> None:
        """Learn from pictures in which each spot is free of parts more often than not.

        Args:
            pictures: one after the other, of one size.
            contrast: grey levels by which a part differs at least.
        """
        stack = np.stack(pictures)
        middle = np.median(stack, axis=0)
        spread = 1.5 * np.median(np.abs(stack - middle), axis=0)
        self._mean = middle.astype(np.float32)
        self._deviation = np.maximum(spread, _LEAST_DEVIATION).astype(np.float32)
        self._contrast = contrast
        ring = np.ones(middle.shape[:2], bool)
        ring[_RING:-_RING, _RING:-_RING] = False
        self._ring = np.flatnonzero(ring)[::2]
        self._lessons = 0
        self._refresh()

    def is_dark(self, picture: Frame) -> bool:
        """Whether the lamp seems to be off: even what is brightest is far darker than the background."""
        return _brightness(picture) < max(_DARK, _DARKER * self._brightness)

    def foreground(self, picture: Frame) -> Mask:
        """Mark what is not background."""
        expected = cv2.convertScaleAbs(self._mean, alpha=self._lamp(picture))
        different = cv2.compare(cv2.absdiff(picture, expected), self._limit, cv2.CMP_GT)
        mask = cv2.max(cv2.max(different[..., 0], different[..., 1]), different[..., 2])
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _SMALL)
        # With a margin, so that nothing near the border grows together with it.
        framed = cv2.copyMakeBorder(mask, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
        return cast(Mask, cv2.morphologyEx(framed, cv2.MORPH_CLOSE, _SMALL)[2:-2, 2:-2])

    def is_another(self, mask: Mask) -> bool:
        """Whether the foreground covers the border all around: no part does that."""
        return float(np.count_nonzero(mask.reshape(-1)[self._ring])) > _COVERED * len(self._ring)

    def follow(self, picture: Frame, mask: Mask) -> None:
        """Learn from what is not foreground."""
        self._lessons += 1
        if self._lessons % _EVERY:
            return
        free = cv2.bitwise_not(cv2.dilate(mask, _LARGE))
        difference = cv2.absdiff(picture.astype(np.float32), self._mean)
        cv2.accumulateWeighted(picture, self._mean, _PACE, mask=free)
        # 1.25: the deviation of normal noise over its mean absolute difference.
        cv2.accumulateWeighted(1.25 * difference, self._deviation, _PACE, mask=free)
        self._refresh()

    def absorb(self, picture: Frame, mask: Mask) -> None:
        """Take for background what a mask marks."""
        there = cv2.dilate(mask, _LARGE) > 0
        self._mean[there] = picture[there]
        self._refresh()

    def _refresh(self) -> None:
        limit = np.maximum(_DEVIATIONS * self._deviation, self._contrast)
        self._limit = limit.clip(0, 255).astype(np.uint8)
        self._ring_mean = self._mean.reshape(-1, 3)[self._ring].sum(axis=1)
        self._brightness = _brightness(self._mean.astype(np.uint8))

    def _lamp(self, picture: Frame) -> float:
        """How much brighter the lamp shines than usual."""
        seen = picture.reshape(-1, 3)[self._ring].sum(axis=1, dtype=np.float32)
        return float(np.median((seen + 1) / (self._ring_mean + 1)).clip(0.5, 2.0))


def is_dark(picture: Frame) -> bool:
    """Whether a picture shows nothing at all."""
    return _brightness(picture) < _DARK


def _brightness(picture: Frame) -> float:
    green = picture[::2, ::2, 1]
    histogram = np.bincount(green.reshape(-1), minlength=256)
    return float(np.searchsorted(np.cumsum(histogram), _BRIGHTEST / 100 * green.size))


_SMALL: Final = np.ones((3, 3), np.uint8)
_LARGE: Final = np.ones((5, 5), np.uint8)
