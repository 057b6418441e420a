"""Draws polygons around what a picture says of where to look."""

import cv2
import numpy as np

from foundation.errors import InputError
from pictures.mask import Mask, Region

_MOST_OUTLINES = 200


def regions_of(mask: Mask) -> tuple[Region, ...]:
    """Outline the white areas of a mask; holes in them become regions of weight 0.

    Raises:
        InputError: it is grey, or so torn that a picture says it better.
    """
    if ((mask.weights > 0) & (mask.weights < 1)).any():
        raise InputError("grey is a weight that polygons cannot say: name the picture itself as mask")
    white = (mask.weights > 0).astype(np.uint8)
    outlines, nesting = cv2.findContours(white, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    regions: list[Region] = []
    # Holes after what they are in.
    for is_hole in (False, True):
        for outline, (_, _, _, parent) in zip(outlines, nesting[0], strict=True):
            if (parent >= 0) != is_hole:
                continue
            polygon = cv2.approxPolyDP(outline, 0.7, True)[:, 0].tolist()
            if len(polygon) < 3:
                continue
            name = f"{'hole' if is_hole else 'region'} {len(regions) + 1}"
            corners = tuple((x, y) for x, y in polygon)
            regions.append(Region(name=name, polygon=corners, weight=0.0 if is_hole else 1.0))
    if not regions or len(regions) > _MOST_OUTLINES:
        raise InputError(
            f"has {len(regions)} areas, expected 1 to {_MOST_OUTLINES}: name the picture itself as mask"
        )
    return tuple(regions)
