"""Page-locks memory that exists already, so that a GPU copies from it without staging."""

import ctypes
import weakref

import numpy as np
from numpy.typing import NDArray

from engine_runtime.cuda_driver import DriverFailed, call, primary_context

_PORTABLE = 1
"""Of CU_MEMHOSTREGISTER: for every context."""


def page_lock(memory: NDArray[np.uint8]) -> None:
    """Lock memory until the last view of it is gone.

    Args:
        memory: uint8 of any shape; owns a mapping of whole pages, or keeps it alive.

    Raises:
        DriverFailed: there is no GPU, or so much memory cannot be locked.
    """
    address = ctypes.c_void_p(memory.ctypes.data)
    with primary_context():
        call("cuMemHostRegister_v2", address, ctypes.c_size_t(memory.nbytes), _PORTABLE)
    weakref.finalize(memory, _unlock, address)  # called before the memory itself goes


def _unlock(address: ctypes.c_void_p) -> None:
    try:
        with primary_context():
            call("cuMemHostUnregister", address)
    except DriverFailed:
        pass  # at the end of the process the driver may be gone, and its locks with it
