"""Near-copies among images, such as consecutive frames of one part: they are evidence of one part."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Frame, Roi, cut_out

_SIDE = 24
_GREY_LEVELS = 1.5
"""Root mean square of the difference of two thumbnails, below which they may show one part. Noise of 4 grey
levels and JPEG's losses stay below 1.3; of 676 good parts of 6 products no two were nearer than 1.9."""
_SHARE = 0.15
"""Of the usual difference between two images, below which they do: a product may hardly vary."""
_SAMPLE = 400

Floats = NDArray[np.float32]


def thumbnail(picture: Frame, roi: Roi | None) -> Floats:
    """Give what is compared of a picture: grey levels of its region of interest, 576 float32."""
    grey = cv2.cvtColor(np.ascontiguousarray(cut_out(picture, roi)), cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()


def groups(thumbnails: Sequence[Floats]) -> list[int]:
    """Group images that show one part.

    An image joins the first group whose first image it is near to, so a slow drift is not one group.

    Args:
        thumbnails: of the images, at least one, as ``thumbnail`` gives them.

    Returns:
        The number of each image's group, counted from 0 in the order of the images.
    """
    images = np.stack(thumbnails)
    images = images - images.mean(axis=0)
    limit = min(_GREY_LEVELS, _SHARE * _usual_difference(images)) ** 2 * images.shape[1]
    squares = np.einsum("ij,ij->i", images, images)
    firsts: list[int] = []
    found = []
    for index, image in enumerate(images):
        distances = squares[firsts] + squares[index] - 2 * (images[firsts] @ image)
        near = np.flatnonzero(distances < limit)
        if not near.size:
            firsts.append(index)
        found.append(int(near[0]) if near.size else len(firsts) - 1)
    return found


def _usual_difference(images: Floats) -> float:
    chosen = images[:: max(1, len(images) // _SAMPLE)]
    if len(chosen) < 2:
        return 0.0
    squares = np.einsum("ij,ij->i", chosen, chosen)
    distances = squares[:, None] + squares - 2 * (chosen @ chosen.T)
    pairs = distances[np.triu_indices(len(chosen), 1)]
    return float(np.sqrt(np.maximum(np.median(pairs), 0) / images.shape[1]))
