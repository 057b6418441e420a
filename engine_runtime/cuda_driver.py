"""The NVIDIA driver, by its own C interface: what pycuda does not have, and what must be known before it.

Without a driver parts of TensorRT crash instead of raising, so the driver is asked first.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from foundation.errors import EngineRefused, GpuNotWorking

_COMPUTE_CAPABILITY_MAJOR: Final = 75
_COMPUTE_CAPABILITY_MINOR: Final = 76


class DriverFailed(Exception):
    """A call of the driver failed; says which one and why, in one line."""


class NoDriver(DriverFailed):
    """There is no driver, or it is too old to know the call."""


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU of this machine."""

    name: str
    compute_capability: str
    """Such as "8.9"."""
    memory: int
    """Bytes."""
    driver: str
    """The newest CUDA version that the driver knows, such as "13.0"."""


def gpu() -> Gpu | None:
    """Describe the first NVIDIA GPU; None when there is none that works."""
    try:
        return _describe_first()
    except DriverFailed:
        return None


def needed_gpu() -> Gpu:
    """Describe the first NVIDIA GPU, without which an engine cannot run.

    Raises:
        EngineRefused: there is no driver.
        GpuNotWorking: there is one, and it finds no GPU, or none that answers.
    """
    try:
        return _describe_first()
    except NoDriver as error:
        raise EngineRefused(f"needs an NVIDIA GPU: {error}") from error
    except DriverFailed as error:
        raise GpuNotWorking(f"needs an NVIDIA GPU: {error}") from error


def _describe_first() -> Gpu:
    number, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    call("cuInit", 0)
    device = _first_device()
    call("cuDeviceGetName", name, len(name), device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    call("cuDriverGetVersion", ctypes.byref(number))
    major, minor = (
        _attribute(which, device) for which in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
    )
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", memory.value, version)


def call(function: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        NoDriver: there is none, or it is too old to know the function.
        DriverFailed: the function failed.
    """
    try:
        driver = _driver()
        result = getattr(driver, function)(*arguments)
    except OSError as error:
        raise NoDriver("there is no NVIDIA driver") from error
    except AttributeError as error:
        raise NoDriver(f"the NVIDIA driver is too old: it has no {function}") from error
    if result:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(result, ctypes.byref(name))
        raise DriverFailed(f"{function}: {(name.value or b'error %d' % result).decode()}")


@contextmanager
def primary_context() -> Iterator[None]:
    """Make the first GPU's primary context, which pycuda and TensorRT share, that of this thread for a while.

    Raises:
        DriverFailed: there is no GPU.
    """
    context = ctypes.c_void_p()
    call("cuInit", 0)
    device = _first_device()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(context))
    finally:
        call("cuDevicePrimaryCtxRelease_v2", device)


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _first_device() -> ctypes.c_int:
    device = ctypes.c_int()
    call("cuDeviceGet", ctypes.byref(device), 0)
    return device


def _attribute(which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    call("cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value
