"""What an engine is executed by on this machine."""

import platform
from pathlib import Path

from engine_runtime.cuda_driver import gpu
from engine_runtime.manifest import Manifest
from engine_runtime.open import runtime_module

_NVIDIA_DRIVER = Path("/sys/module/nvidia/version")


def environment_of(manifest: Manifest) -> str:
    """Name the runtime and the device, with their versions, that an engine would be executed by here.

    Where the name is another one, what was found out about the engine does not hold any more.

    Raises:
        EngineRefused: the runtime is not installed.
    """
    if manifest.server is not None:
        return f"kserve {runtime_module('kserve').VERSION} on {', '.join(manifest.server.addresses)}"
    device = _gpu() if manifest.executed_on == "cuda" or manifest.runtime == "tensorrt" else cpu_model()
    return f"{manifest.runtime} {runtime_module(manifest.runtime).VERSION} on {device}"


def _gpu() -> str:
    found = gpu()
    if found is None:
        return "no GPU that works"
    return f"{found.name}, driver {_first_line(_NVIDIA_DRIVER) or 'unknown'}, CUDA {found.driver}"


def cpu_model() -> str:
    """Name this machine's CPU."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()  # ARM kernels give no model name


def _first_line(file: Path) -> str:
    return _read(file).partition("\n")[0]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
