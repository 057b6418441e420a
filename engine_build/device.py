import os
import platform
from pathlib import Path


def usable_cores() -> int:
    """Count the logical cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """Name this machine's CPU and how many of its cores this process may use."""
    cores = usable_cores()
    return f"{_model_name()}, {cores} {'core' if cores == 1 else 'cores'}"


def _model_name() -> str:
    # ARM kernels give no "model name".
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
