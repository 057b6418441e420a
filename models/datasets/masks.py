"""The defects of an image, from the masks that people drew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from models.datasets.data_set import Sample, Saturations
from pictures.frames import Roi, Size
from pictures.image_file import read_unchanged

LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class Region:
    """One defect in an image."""

    indices: NDArray[np.intp]
    """Of the pixels that belong to it, in the flattened image: a mask may hold thousands of specks."""
    shape: tuple[int, int]
    """Height and width of the image."""
    saturation: int
    """So many pixels found count as all of them found."""

    @classmethod
    def of(cls, pixels: NDArray[np.bool_], saturation: int | None = None) -> Self:
        """Make a region of the pixels set in H×W, saturated by all of them when no number is given."""
        indices = np.flatnonzero(pixels)
        return cls(indices, Size(*pixels.shape), len(indices) if saturation is None else saturation)

    @property
    def pixels(self) -> NDArray[np.bool_]:
        """Which pixels belong to it, H×W."""
        return union([self], self.shape)


def regions(
    sample: Sample, size: Size, roi: Roi | None, saturations: Saturations | None
) -> list[Region] | None:
    """Read the defects of an image.

    Without saturation thresholds, defects are the regions of 8-connected pixels in the masks. With them, each
    mask is one defect, connected or not, as MVTec LOCO defines it.

    Args:
        sample: the image with its masks.
        size: of the whole picture.
        roi: region of interest; what lies outside is cut away, and with it perhaps whole defects.
        saturations: of MVTec LOCO, else None.

    Returns:
        The defects inside the region of interest; None when there are no masks or they mark nothing, so that
        nobody knows where the defect is.

    Raises:
        InputError: a mask cannot be read, has another size than its image, or holds values without a
            saturation threshold.
    """
    masks = [(path, _read(path, sample.image, size)) for path in sample.masks]
    if not any(mask.any() for _, mask in masks):
        return None
    if saturations is None:
        marked = np.zeros(size, dtype=np.bool_)
        for _, mask in masks:
            marked |= mask > 0
        return _connected(_cut(marked, roi))
    found = []
    for path, mask in masks:
        if not mask.any():
            continue
        saturation = saturations[_value(path, mask, saturations)]
        # Of the whole defect: the region of interest changes what can be found, not what is asked for.
        pixels, area = _cut(mask > 0, roi), int(np.count_nonzero(mask))
        if pixels.any():
            found.append(Region.of(pixels, min(saturation.area(area), int(np.count_nonzero(pixels)))))
    return found


def _read(path: Path, image: Path, size: Size) -> NDArray[np.int64]:
    """Read a mask as H×W; 0 is background."""
    values = _values(read_unchanged(path).astype(np.int64))
    if values.shape != tuple(size):
        found = Size(*values.shape)
        raise InputError(
            f"{path}: the mask is {found.width}×{found.height} pixels, its image {image} is "
            f"{size.width}×{size.height}"
        )
    if path.suffix.lower() in LOSSY:  # compression left shades of grey around everything
        values = np.where(values >= 128, values, 0)
    return values


def _values(mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the value of each pixel of a mask H×W or H×W×C.

    The alpha channel counts only where the colours are the same all over: then it is what was drawn, white or
    black on nothing. Where it is the same all over, too, the colours alone count.
    """
    if mask.ndim == 2:
        return mask
    colours: NDArray[np.int64] = mask[..., :3].max(axis=2)
    alpha: NDArray[np.int64] | None = mask[..., 3] if mask.shape[2] == 4 else None
    if alpha is None or alpha.min() == alpha.max():
        return colours
    visible = colours[alpha > 0]
    return alpha if visible.min() == visible.max() else np.where(alpha > 0, colours, 0)


def _value(path: Path, mask: NDArray[np.int64], saturations: Saturations) -> int:
    """Give the one value of a LOCO mask."""
    values = [int(value) for value in np.unique(mask) if value]
    if len(values) != 1 or values[0] not in saturations:
        known = ", ".join(map(str, sorted(saturations)))
        shown = ", ".join(map(str, values[:5]))
        raise InputError(f"{path}: holds the pixel values {shown}; expected one of {known}")
    return values[0]


def _cut(mask: NDArray[np.bool_], roi: Roi | None) -> NDArray[np.bool_]:
    return mask if roi is None else mask[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]


def _connected(marked: NDArray[np.bool_]) -> list[Region]:
    _, labels = cv2.connectedComponents(marked.astype(np.uint8), connectivity=8)
    inside = np.flatnonzero(marked)
    order = np.argsort(labels.ravel()[inside], kind="stable")
    sorted_labels = labels.ravel()[inside[order]]
    parts = np.split(inside[order], np.flatnonzero(np.diff(sorted_labels)) + 1) if inside.size else []
    return [Region(indices, Size(*marked.shape), len(indices)) for indices in parts]


def union(found: Sequence[Region], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Give all defective pixels of an image, H×W."""
    marked = np.zeros(shape, dtype=np.bool_)
    for region in found:
        marked.ravel()[region.indices] = True
    return marked
