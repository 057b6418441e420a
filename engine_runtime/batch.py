from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine_runtime.engine import Quantiles
from engine_runtime.manifest import Manifest
from pictures.frames import Frame, Size


def check_frames(frames: Sequence[Frame], size: Size, capacity: int) -> None:
    """Refuse what an engine cannot take.

    Args:
        frames: of a batch.
        size: height and width that every frame must have.
        capacity: the most frames a batch may hold.

    Raises:
        ValueError: too many frames, none, or one of another size or type.
    """
    if not 1 <= len(frames) <= capacity:
        raise ValueError(f"a batch of {len(frames)} frames; expected 1 to {capacity}")
    shape = (*size, 3)
    for frame in frames:
        if frame.shape != shape or frame.dtype != np.uint8:
            raise ValueError(f"a frame is {frame.dtype} {frame.shape}; the engine takes uint8 {shape}")


def check_quantiles(quantiles: Quantiles, manifest: Manifest) -> None:
    """Refuse quantiles that are not one row for each map.

    Raises:
        ValueError: they have another shape or type.
    """
    maps = manifest.maps
    if quantiles.shape != (len(maps), 2) or quantiles.dtype != np.float32:
        found = "×".join(map(str, quantiles.shape)) or "one number"
        raise ValueError(
            f"quantiles are {quantiles.dtype} {found}; the engine takes float32 {len(maps)}×2, a row for"
            f" each of its maps: {', '.join(maps)}"
        )


class Batch:
    """One buffer, allocated once, in which a lane gathers frames that lie apart in memory.

    Args:
        size: height and width of every frame.
        capacity: the most frames a batch may hold.
    """

    def __init__(self, size: Size, capacity: int) -> None:
        self._buffer: NDArray[np.uint8] = np.empty((capacity, *size, 3), np.uint8)

    def gather(self, frames: Sequence[Frame]) -> Frame:
        """Copy frames one after another; a single one stays where it lies.

        Returns:
            N×H×W×3 uint8, a view that holds until the next call.

        Raises:
            ValueError: see ``check_frames``.
        """
        check_frames(frames, Size(*self._buffer.shape[1:3]), len(self._buffer))
        if len(frames) == 1 and frames[0].flags.c_contiguous:
            return frames[0][None]
        for row, frame in zip(self._buffer, frames, strict=False):
            row[...] = frame
        return self._buffer[: len(frames)]
