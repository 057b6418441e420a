"""What was enqueued on a stream once, kept to be enqueued again with one call; pycuda has nothing for it."""

import ctypes
from collections.abc import Callable

from engine_runtime.cuda_driver import call

_THREAD_LOCAL = 1
"""Of CUstreamCaptureMode: other lanes may allocate meanwhile."""


class CudaGraph:
    """A CUDA graph, captured from a stream.

    Args:
        stream: the handle of a stream of this thread's context on which nothing runs.
        enqueue: enqueues on it what is to be repeated; none of it is executed yet.

    Raises:
        DriverFailed: something was enqueued that cannot be captured.
    """

    def __init__(self, stream: int, enqueue: Callable[[], object]) -> None:
        handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", handle, _THREAD_LOCAL)
        try:
            enqueue()
        finally:  # else the stream could be used for nothing else
            call("cuStreamEndCapture", handle, ctypes.byref(graph))
        self._executable = ctypes.c_void_p()
        try:
            call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            call("cuGraphDestroy", graph)

    def launch(self, stream: int) -> None:
        """Enqueue all of it on a stream.

        Raises:
            DriverFailed: the GPU has failed.
        """
        call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def close(self) -> None:
        """Free it; it must not run any more."""
        call("cuGraphExecDestroy", self._executable)
