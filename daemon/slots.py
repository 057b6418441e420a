"""Shared memory through which frames cross from a camera process to the lanes without a copy of ours."""

import mmap
import os

import numpy as np
from numpy.typing import NDArray

from engine_runtime.frames import Frame, Size

_HEADER_BYTES = mmap.PAGESIZE  # slots start on a page, as page-locking for a GPU wants them


class FrameSlots:
    """A fixed number of frame-sized slots and one counter, allocated once.

    The memory is anonymous (``memfd``): the camera process inherits its descriptor, no name is left behind
    whichever process dies, and it is freed with the last of them.

    ``captured`` is the number of the last captured frame. The camera process writes it before it does
    anything else with a frame, so the daemon can account for frames whose process died before it could
    announce them.
    """

    def __init__(self, descriptor: int, count: int, size: Size) -> None:
        self.descriptor = descriptor
        self.count = count
        length = _HEADER_BYTES + count * size.height * size.width * 3
        if os.fstat(descriptor).st_size < length:
            os.ftruncate(descriptor, length)
        self._memory = mmap.mmap(descriptor, length)
        self._captured: NDArray[np.uint64] = np.frombuffer(self._memory, np.uint64, 1)
        self._frames: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8, offset=_HEADER_BYTES).reshape(
            count, size.height, size.width, 3
        )

    @classmethod
    def create(cls, count: int, size: Size) -> "FrameSlots":
        """Allocate slots for ``count`` frames of H×W×3 uint8.

        Raises:
            OSError: there is not enough memory.
        """
        return cls(os.memfd_create("inspectd-frames"), count, size)

    @property
    def captured(self) -> int:
        """Number of the last captured frame."""
        return int(self._captured[0])

    @captured.setter
    def captured(self, frame: int) -> None:
        self._captured[0] = frame

    def __getitem__(self, slot: int) -> Frame:
        """Give a slot's frame, H×W×3 uint8 BGR, as a view."""
        frame: Frame = self._frames[slot]
        return frame

    def close(self) -> None:
        """Give the descriptor back; the memory goes when the last view of it does."""
        os.close(self.descriptor)
