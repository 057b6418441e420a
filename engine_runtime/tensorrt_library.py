"""Finds whichever TensorRT is installed."""

import importlib
import re
from importlib.metadata import packages_distributions
from types import ModuleType
from typing import Any, Final, Literal

from engine_runtime.cuda_driver import Gpu
from foundation.errors import EngineRefused

Library = Literal["tensorrt", "tensorrt_rtx"]

_MODULES: Final[dict[str, Library]] = {
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt_rtx",
    # What the wheels of TensorRT-RTX call it; the package tensorrt-rtx only gives it the other name.
    "tensorrt_rtx_bindings": "tensorrt_rtx",
}


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


def is_installed() -> bool:
    """Say whether there is a TensorRT of either kind."""
    try:
        library()
    except EngineRefused:
        return False
    return True


def refuse_old_driver(present: Gpu) -> None:
    """Refuse a driver on which the TensorRT that is installed would crash, or fail with a number.

    Its packages carry the major version of CUDA that they were made for, and run with every driver that
    knows that version (CUDA's minor version compatibility). What came otherwise, as on a Jetson, fits.

    Raises:
        EngineRefused: the driver is too old.
    """
    name, trt = library()
    packages = packages_distributions().get(trt.__name__, [])
    made_for = next((int(found[1]) for package in packages if (found := re.search(r"_cu(\d+)", package))), 0)
    if int(present.driver.partition(".")[0]) < made_for:
        raise EngineRefused(
            f"the NVIDIA driver is too old: it knows CUDA {present.driver}, and {name} {trt.__version__} is"
            f" made for CUDA {made_for}: install a newer driver"
        )


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
