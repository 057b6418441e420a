import os

from engine_runtime.environment import cpu_model


def usable_cores() -> int:
    """Count the logical cores this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    """Name this machine's CPU and how many of its cores this process may use."""
    cores = usable_cores()
    return f"{cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"
