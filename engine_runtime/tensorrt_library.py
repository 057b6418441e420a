"""Finds TensorRT, and the GPU, without executing either's code where that is not safe.

Without a driver parts of TensorRT crash instead of raising, so the driver is asked first, by its own C
interface.
"""

import ctypes
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal

from engine_runtime.errors import EngineRefused

Library = Literal["tensorrt", "tensorrt_rtx"]

_MODULES: Final[dict[str, Library]] = {
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    # What the wheels of TensorRT-RTX call it; the package tensorrt-rtx only gives it the other name.
    "tensorrt_rtx_bindings": "tensorrt_rtx",
}
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


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


def library() -> tuple[Library, ModuleType]:
    """Import TensorRT, or TensorRT-RTX where that is what is installed.

    Raises:
        EngineRefused: neither is installed.
    """
    for module, name in _MODULES.items():
        try:
            return name, importlib.import_module(module)
        except (ImportError, OSError):
            continue
    raise EngineRefused(
        "runtime tensorrt is not installed here: pip install 'inspectd[tensorrt-rtx]' for RTX cards, or"
        " 'inspectd[tensorrt]'"
    )


def gpu() -> Gpu | None:
    """Describe the first NVIDIA GPU; None when there is none, or no driver for it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, count, number = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _succeed(driver.cuDeviceGetAttribute(ctypes.byref(value), which, device))
        return value.value

    try:
        _succeed(driver.cuInit(0))
        _succeed(driver.cuDeviceGetCount(ctypes.byref(count)))
        if not count.value:
            return None
        _succeed(driver.cuDeviceGet(ctypes.byref(device), 0))
        _succeed(driver.cuDeviceGetName(name, len(name), device))
        _succeed(driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
        _succeed(driver.cuDriverGetVersion(ctypes.byref(number)))
        major, minor = attribute(_COMPUTE_CAPABILITY_MAJOR), attribute(_COMPUTE_CAPABILITY_MINOR)
    except (_DriverFailed, AttributeError):
        return None
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", memory.value, version)


def logger(trt: ModuleType) -> Any:
    """Make what TensorRT logs to; it raises nothing, so ``last_error`` keeps what it said last."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last_error = " ".join(message.split())[:300]

    return Logger()


class _DriverFailed(Exception):
    pass


def _succeed(result: int) -> None:
    if result != 0:
        raise _DriverFailed
