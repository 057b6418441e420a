from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.capture.presence.tracks import Blob, Mask, Track
from pictures.frames import Frame

_PACE: Final = 0.05
_EVERY: Final = 4  # frames between two lessons
_LEAST_DEVIATION: Final = 1.0
_DEVIATIONS: Final = 5.0
_RING: Final = 2  # pixels at the border, which a whole part never covers
_COVERED: Final = 0.9  # of the ring: that is no part, but another background
_LEAST_GAIN: Final = 0.5
_MOST_GAIN: Final = 2.0
_DARKER: Final = 0.3
_DARK: Final = 8.0
"""Grey level that the brightest hundredth of a lit picture is above."""
_BRIGHTEST: Final = 99.0
_CLEARER: Final = 1.5
_UNSTEADY: Final = 4.0  # times as much as usual
_FLOOR: Final = 2.0  # grey levels from pixel to pixel, that noise makes


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
        self._gain = 1.0
        """How much brighter the lamp shone than usual, in the picture that was looked at last."""
        self._refresh()

    def undecided(self) -> Mask:
        """Mark where the pictures that it was made of showed the belt and parts about equally often."""
        spread = self._deviation.max(axis=2)
        most = max(self._contrast, _UNSTEADY * float(np.median(spread)))
        mask = (spread > most).astype(np.uint8) * 255
        return cast(Mask, cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _LARGE))

    def is_dark(self, picture: Frame) -> bool:
        """Whether the lamp seems to be off: even what is brightest is far darker than the background."""
        return _brightness(picture) < max(_DARK, _DARKER * self._brightness)

    def foreground(self, picture: Frame) -> Mask:
        """Mark what is not background."""
        self._gain = self._measured_gain(picture)
        expected = cv2.convertScaleAbs(self._mean, alpha=self._gain)
        different = cv2.compare(cv2.absdiff(picture, expected), self._limit, cv2.CMP_GT)
        mask = cv2.max(cv2.max(different[..., 0], different[..., 1]), different[..., 2])
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _SMALL)
        # With a margin, so that nothing near the border grows together with it.
        framed = cv2.copyMakeBorder(mask, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
        return cast(Mask, cv2.morphologyEx(framed, cv2.MORPH_CLOSE, _SMALL)[2:-2, 2:-2])

    def is_another(self, mask: Mask) -> bool:
        """Whether nothing of the picture that was looked at last is as usual.

        Its light is far brighter or darker, or the foreground covers the border all around.
        """
        if not _LEAST_GAIN < self._gain < _MOST_GAIN:
            return True
        return float(np.count_nonzero(mask.reshape(-1)[self._ring])) > _COVERED * len(self._ring)

    def is_ghost(self, picture: Frame, mask: Mask, blob: Blob, *, is_new: bool) -> bool:
        """Whether something in the foreground is rather the place where a part lay than a part.

        A part has its edges in the picture, its place has them in the background. What has both is the rim of
        a part that has moved off a little, if it appears amid the picture.
        """
        x, y, right, bottom = (int(side) for side in blob.sides)
        box = slice(max(0, y - 2), bottom + 2), slice(max(0, x - 2), right + 2)
        there = cv2.copyMakeBorder(mask[box], 2, 2, 2, 2, cv2.BORDER_REPLICATE)
        rim = cv2.morphologyEx(there, cv2.MORPH_GRADIENT, _LARGE)[2:-2, 2:-2] > 0
        if not rim.any():
            return False
        seen, expected = (_steepness(grey[box])[rim].mean() + _FLOOR for grey in (picture, self._mean))
        return bool(seen < expected * (_CLEARER if is_new and blob.whole else 1 / _CLEARER))

    def shows_ghosts(self, picture: Frame, mask: Mask, tracks: list[Track], known: list[Track]) -> bool:
        """Whether any of the things in view is a ghost; those that are not known are new in this picture."""
        seen = (track for track in tracks if not track.unseen)
        return any(self.is_ghost(picture, mask, track.blob, is_new=track not in known) for track in seen)

    def follow(self, picture: Frame, mask: Mask) -> None:
        """Learn from what is not foreground in the picture that was looked at last."""
        self._lessons += 1
        if self._lessons % _EVERY:
            return
        free = cv2.bitwise_not(cv2.dilate(mask, _LARGE))
        # As the lamp usually shines: what parts cover now would be left behind if the rest followed the lamp.
        usual = picture.astype(np.float32) / np.float32(self._gain)
        difference = cv2.absdiff(usual, self._mean)
        cv2.accumulateWeighted(usual, self._mean, _PACE, mask=free)
        # 1.25: the deviation of normal noise over its mean absolute difference.
        cv2.accumulateWeighted(1.25 * difference, self._deviation, _PACE, mask=free)
        self._refresh()

    def absorb(self, picture: Frame, mask: Mask) -> None:
        """Take for background what a mask marks."""
        there = cv2.dilate(mask, _LARGE) > 0
        self._mean[there] = picture[there] / np.float32(self._gain)
        self._refresh()

    def _refresh(self) -> None:
        limit = np.maximum(_DEVIATIONS * self._deviation, self._contrast)
        self._limit = limit.clip(0, 255).astype(np.uint8)
        self._ring_mean = self._mean.reshape(-1, 3)[self._ring].sum(axis=1)
        self._brightness = _brightness(self._mean.astype(np.uint8))

    def _measured_gain(self, picture: Frame) -> float:
        seen = picture.reshape(-1, 3)[self._ring].sum(axis=1, dtype=np.float32)
        return float(np.median((seen + 1) / (self._ring_mean + 1)))


def is_dark(picture: Frame) -> bool:
    """Whether a picture shows nothing at all."""
    return _brightness(picture) < _DARK


def _steepness(picture: Frame | NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each pixel differs from its neighbours, in the colour in which it does most."""
    values = picture.astype(np.float32)
    across, down = (cv2.Sobel(values, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    steepness: NDArray[np.float32] = np.max(np.abs(across) + np.abs(down), axis=2)
    return steepness


def _brightness(picture: Frame) -> float:
    green = picture[::2, ::2, 1]
    histogram = np.bincount(green.reshape(-1), minlength=256)
    return float(np.searchsorted(np.cumsum(histogram), _BRIGHTEST / 100 * green.size))


_SMALL: Final = np.ones((3, 3), np.uint8)
_LARGE: Final = np.ones((5, 5), np.uint8)
