"""Memory that one training step frees is kept for the next."""

import ctypes
import platform

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where it runs with glibc.

    By default glibc maps every large tensor and gives it back, and the kernel fills its pages with zeros each
    time: a twelfth of a step of S.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
