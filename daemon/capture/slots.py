"""Shared memory through which frames cross from a camera process to the lanes without a copy of ours."""

import errno
import fcntl
import math
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine_runtime.page_lock import page_lock
from pictures.frames import Frame


class FrameSlots:
    """A fixed number of frame-sized slots, allocated once.

    The memory is anonymous (``memfd``): the camera process inherits its descriptor, no name is left over when
    a process dies, and the memory is freed with the last of them. It starts on a page, as page-locking for a
    GPU requires.
    """

    def __init__(self, descriptor: int, count: int, shape: tuple[int, ...]) -> None:
        """Map slots that ``create`` made, by their descriptor."""
        self.descriptor = descriptor
        self.count = count
        self._memory = mmap.mmap(descriptor, count * math.prod(shape))
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8)
        self._frames = self._bytes.reshape(count, *shape)

    @classmethod
    def create(cls, count: int, shape: tuple[int, ...]) -> "FrameSlots":
        """Allocate slots for ``count`` frames of uint8: H×W×3, or tiles×H×W×3.

        Raises:
            OSError: there is not enough memory.
        """
        length = count * math.prod(shape)
        if length > _available_bytes():
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))  # asking for it would kill this process
        descriptor = os.memfd_create("inspectd-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # All of it now: memory that is missing at the first touch would kill the process that touches it.
            os.posix_fallocate(descriptor, 0, length)
            # So would memory that a camera process gone mad has taken away.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
            return cls(descriptor, count, shape)
        except OSError:
            os.close(descriptor)
            raise

    def __getitem__(self, slot: int) -> Frame:
        """Give a slot's frame, uint8 BGR, as a view."""
        frame: Frame = self._frames[slot]
        return frame

    def page_lock(self) -> None:
        """Keep the memory where it is, until its last view is gone, so that a GPU copies from it directly.

        Raises:
            DriverFailed: there is no GPU, or so much memory cannot be locked.
        """
        page_lock(self._bytes)

    def close(self) -> None:
        """Give the descriptor back; the memory goes when the last view of it does."""
        os.close(self.descriptor)


def _available_bytes() -> int:
    """What can be allocated without pushing anything out of memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
