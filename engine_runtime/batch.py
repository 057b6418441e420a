from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine_runtime.frames import Frame, Size


class Batch:
    """One buffer, allocated once, in which a lane gathers frames that lie apart in memory.

    Args:
        size: height and width of every frame.
        capacity: the most frames a batch may hold.
        allocate: gives memory for an array of a shape and a type.
    """

    def __init__(
        self, size: Size, capacity: int, allocate: Callable[..., NDArray[np.uint8]] = np.empty
    ) -> None:
        self._buffer = allocate((capacity, *size, 3), np.uint8)

    @property
    def nbytes(self) -> int:
        """How large it is."""
        return self._buffer.nbytes

    def gather(self, frames: Sequence[Frame]) -> Frame:
        """Copy frames behind one another; a single one stays where it lies.

        Returns:
            N×H×W×3 uint8, a view that holds until the next call.

        Raises:
            ValueError: too many frames, none, or one of another size or type.
        """
        if not 1 <= len(frames) <= len(self._buffer):
            raise ValueError(f"a batch of {len(frames)} frames; expected 1 to {len(self._buffer)}")
        row = self._buffer[0]
        for frame in frames:
            if frame.shape != row.shape or frame.dtype != row.dtype:
                raise ValueError(
                    f"a frame is {frame.dtype} {frame.shape}; the engine takes {row.dtype} {row.shape}"
                )
        if len(frames) == 1 and frames[0].flags.c_contiguous:
            return frames[0][None]
        for row, frame in zip(self._buffer, frames, strict=False):
            row[...] = frame
        return self._buffer[: len(frames)]
