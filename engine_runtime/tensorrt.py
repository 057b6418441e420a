"""Runs a TensorRT plan on an NVIDIA GPU."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine_runtime.batch import check_frames, check_quantiles
from engine_runtime.cuda_driver import DriverFailed, Gpu, needed_gpu
from engine_runtime.cuda_graph import CudaGraph
from engine_runtime.engine import ANOMALY_MAP, FRAMES, QUANTILES, SCORE, Quantiles
from engine_runtime.manifest import Manifest
from engine_runtime.open import one_line
from engine_runtime.proof import batch_sizes
from engine_runtime.tensorrt_library import library, logger, refuse_old_driver
from foundation.errors import EngineFailed, EngineRefused
from pictures.frames import Frame

LIBRARY, _trt = library()
VERSION: str = _trt.__version__

_CAPTURED_HERE: Final = LIBRARY == "tensorrt"
"""Whether CUDA graphs are made by this module: TensorRT-RTX makes them itself."""
_WARM_UPS: Final = 2
"""Of each batch size: compiling and allocating come with the first execution, capturing with the second."""


class TensorRtEngine:
    """One stream of its own, with all its memory allocated once.

    Frames are copied from where they lie, without staging where that is page-locked; only the outputs that
    are asked for are copied back; the lane waits for its own event and for nothing else. Batches of 1, 2, 4 …
    frames have an execution context each, with its kernels compiled and captured as a CUDA graph before the
    first frame comes, and any other batch runs as the next larger one: a context that changes its shape
    holds the line up, by milliseconds each time and by seconds the first time.
    """

    trouble = None
    """See ``Engine.trouble``: it judges, or it raises."""

    def __init__(self, manifest: Manifest, payload: bytes, threads: int | None) -> None:
        del threads  # the GPU does the work
        cuda = _refuse_what_does_not_fit(manifest)
        self.manifest = manifest
        self._cuda = cuda
        self._device_context = cuda.Device(0).retain_primary_context()
        with self._current():
            self._logger = logger(_trt)
            self._runtime = _trt.Runtime(self._logger)  # must outlive the engine
            self._engine = self._runtime.deserialize_cuda_engine(payload)
            if self._engine is None:
                raise EngineRefused(f"{LIBRARY} {VERSION} does not take it: {self._logger.last_error}")
            self._refuse_too_large()
            self._stream = cuda.Stream()
            self._done = cuda.Event(_event_flags(cuda))
            self._quantiles = cuda.pagelocked_empty((len(manifest.maps), 2), np.float32)
            self._results = {
                name: cuda.pagelocked_empty(self._shape(name), np.float32) for name in manifest.outputs
            }
            sizes = {FRAMES: manifest.max_batch * self._frame_bytes, QUANTILES: self._quantiles.nbytes}
            sizes |= {name: array.nbytes for name, array in self._results.items()}
            self._memory = {name: cuda.mem_alloc(size) for name, size in sizes.items()}
            # The contexts run one after the other, so they share what they compute in.
            self._scratch = cuda.mem_alloc(max(1, self._engine.device_memory_size_v2))
            self._batches = {size: self._prepare(size) for size in batch_sizes(manifest.max_batch)}

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``."""
        check_frames(frames, self.manifest.input_size, self.manifest.max_batch)
        check_quantiles(quantiles, self.manifest)
        self._quantiles[...] = quantiles
        count, cuda = len(frames), self._cuda
        try:
            with self._current():
                for row, frame in enumerate(map(np.ascontiguousarray, frames)):
                    target = int(self._memory[FRAMES]) + row * self._frame_bytes
                    cuda.memcpy_htod_async(target, frame, self._stream)
                cuda.memcpy_htod_async(self._memory[QUANTILES], self._quantiles, self._stream)
                self._launch(next(batch for size, batch in self._batches.items() if size >= count))
                for name in outputs:
                    rows = self._results[name][:count]
                    cuda.memcpy_dtoh_async(rows, self._memory[name], self._stream)
                self._done.record(self._stream)
                self._done.synchronize()
        except (cuda.Error, DriverFailed) as error:
            raise EngineFailed(f"the GPU failed: {one_line(error)}") from error
        except KeyError as error:
            raise EngineFailed(f"there is no output {error}") from error
        return {name: self._results[name][:count].copy() for name in outputs}

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``: a plan keeps the types of the network it was built from."""
        return self.manifest.proof.half_precision_share

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._current():
            for batch in self._batches.values():
                if batch.graph is not None:
                    batch.graph.close()
            del batch, self._batches, self._engine, self._runtime  # contexts before their engine
            for memory in (*self._memory.values(), self._scratch):
                memory.free()
            del self._stream, self._done, self._results, self._quantiles
        self._device_context.detach()

    @property
    def _frame_bytes(self) -> int:
        return math.prod(self.manifest.input_size) * 3

    def _prepare(self, size: int) -> "_Batch":
        """Make the context of a batch size, which keeps that shape, and let it do once what it does once."""
        own_memory = _trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if _CAPTURED_HERE:
            context = self._engine.create_execution_context(own_memory)
        else:
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(own_memory)
            config.cuda_graph_strategy = _trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.dynamic_shapes_kernel_specialization_strategy = (
                _trt.DynamicShapesKernelSpecializationStrategy.EAGER  # else the first batches are slow
            )
            context = self._engine.create_execution_context(config)
        if context is None:
            raise EngineRefused(f"{LIBRARY} {VERSION} cannot run it: {self._logger.last_error}")
        context.set_device_memory(int(self._scratch), self._engine.device_memory_size_v2)
        for name, memory in self._memory.items():
            context.set_tensor_address(name, int(memory))
        context.set_input_shape(FRAMES, (size, *self.manifest.input_size, 3))
        for _ in range(_WARM_UPS):
            self._execute(context)
        self._stream.synchronize()
        graph = CudaGraph(self._stream.handle, lambda: self._execute(context)) if _CAPTURED_HERE else None
        return _Batch(context, graph)

    def _launch(self, batch: "_Batch") -> None:
        if batch.graph is not None:
            batch.graph.launch(self._stream.handle)
        else:
            self._execute(batch.context)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise EngineFailed(f"{LIBRARY} failed: {self._logger.last_error}")

    def _shape(self, name: str) -> tuple[int, ...]:
        rows = (self.manifest.max_batch,)
        return rows if name == SCORE else (*rows, *self.manifest.map_size)

    def _refuse_too_large(self) -> None:
        needed = self._engine.device_memory_size_v2
        free, _ = self._cuda.mem_get_info()
        if needed > free:
            raise EngineRefused(
                f"needs {needed >> 20} MB of the GPU's memory to compute in, but only "
                f"{free >> 20} MB are free: "
                "build it with a smaller --max-batch or --workspace-mb, or run fewer lanes"
            )

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the GPU's context that of this thread: a lane is not the thread that opened its engine."""
        self._device_context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()


def _event_flags(cuda: ModuleType) -> int:
    """Choose how a lane waits: spinning is quickest, and keeps a core from all else that has to run there."""
    only_core = len(os.sched_getaffinity(0)) == 1
    return int(cuda.event_flags.DISABLE_TIMING | (cuda.event_flags.BLOCKING_SYNC if only_core else 0))


class _Batch(NamedTuple):
    """What a batch of one size runs with."""

    context: Any
    """Holds what the graph computes with, too."""
    graph: CudaGraph | None
    """None where the context captures its own."""


def _refuse_what_does_not_fit(manifest: Manifest) -> ModuleType:
    """Refuse before anything is executed, and give pycuda's driver interface.

    Raises:
        EngineRefused: no GPU or no pycuda is here, the driver is too old, or the plan was built for another
            GPU or library.
        GpuNotWorking: see ``needed_gpu``.
    """
    present = needed_gpu()
    _refuse_other_library(manifest)
    refuse_old_driver(present)
    _refuse_other_gpu(manifest, present)
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise EngineRefused(f"pycuda is not installed here ({one_line(error)})") from error
    cuda.init()
    driver: ModuleType = cuda
    return driver


def _refuse_other_library(manifest: Manifest) -> None:
    built, here = (manifest.library, manifest.runtime_version), (LIBRARY, VERSION)
    if built != here:
        raise EngineRefused(
            f"was built by {built[0]} {built[1]}; {here[0]} {here[1]} here cannot read it: build it again"
        )


def _refuse_other_gpu(manifest: Manifest, present: Gpu) -> None:
    wanted = manifest.compute_capability
    if wanted is not None and (wanted, manifest.device) != (present.compute_capability, present.name):
        raise EngineRefused(
            f"was built for {manifest.device}, compute capability {wanted}; here is {present.name},"
            f" {present.compute_capability}: build it again on this machine"
        )


load = TensorRtEngine
