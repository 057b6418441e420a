"""The cores of the machine that a process keeps to."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from foundation.errors import InputError

Cores = Annotated[list[Annotated[int, Ge(0), Le(8191)]], MinLen(1)]
"""As the kernel numbers them (``/proc/cpuinfo``), from 0."""


def keep_to(cores: Sequence[int] | None) -> None:
    """Have the calling process, and all that it starts from now on, run on these cores only.

    The scheduler knows what is busy, not what waits for whom: it may put a camera on the event loop's core
    while another core idles. It also leaves isolated cores (``isolcpus``) alone until someone asks for them.

    Args:
        cores: None changes nothing.

    Raises:
        InputError: one of them cannot be used: there is no such core, or the service may not have it.
    """
    if cores is None:
        return
    os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))  # all that may be had
    usable = os.sched_getaffinity(0)
    unusable = sorted(set(cores) - usable)
    if unusable:
        raise InputError(
            f"cores: found {', '.join(map(str, unusable))}, expected some of those that can be used here: "
            f"{', '.join(map(str, sorted(usable)))}"
        )
    for thread in Path("/proc/self/task").iterdir():  # libraries start theirs when they are imported
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)
