"""Which of the daemon's threads goes first where several want the same core."""

import contextlib
import os
import threading


def give_way() -> None:
    """Keep the calling thread from interrupting others when it wakes.

    The event loop hears every frame and gives every verdict. The threads that work for it wake thousands of
    times per second on a fast line, and would interrupt it each time. With Linux's policy ``SCHED_BATCH``
    (sched(7)) they wait until it pauses, and still get their share of the cores. A policy that the service
    was given stays.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # a sandbox forbids it, and nothing depends on it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def can_give_way() -> bool:
    """Whether threads that ZeroMQ starts may do so, which ends the process where it is forbidden."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


def go_last() -> None:
    """Have the calling thread run where nobody else wants the core, as far as the system allows it."""
    give_way()
    with contextlib.suppress(OSError):  # a sandbox may forbid this, too
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # of a thread: Linux's way
