"""Builds a TensorRT plan as a strongly typed network: every tensor has the type the ONNX graph gives it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from tqdm import tqdm

from engine_runtime.engine import FRAMES
from engine_runtime.open import one_line
from engine_runtime.tensorrt_library import Library, library, logger
from foundation.errors import EngineFailed, InputError
from foundation.files import write_whole
from pictures.frames import Size

_OUT_OF_WORKSPACE: Final = ("OutOfMemory", "workspace limit")
"""What TensorRT's last error then says; it has no code of its own."""


class Profile(NamedTuple):
    """Batch sizes of a plan: 1 to ``largest``, the fastest at ``best``."""

    best: int
    largest: int


class Plan(NamedTuple):
    """A serialised plan."""

    content: bytes
    library: Library
    version: str
    half_precision_share: float
    """Of the convolutions, by the types of the typed network that was built."""


def build_plan(
    content: bytes, size: Size, profile: Profile, *, workspace_mb: int | None, timings: Path
) -> Plan:
    """Build a plan for this machine's GPU; TensorRT-RTX builds for any GPU where there is none.

    Args:
        content: ONNX model that keeps contract 1, in the types in which it is to run.
        size: height and width of its frames.
        profile: batch sizes.
        workspace_mb: the most memory that it may use between its layers; all of the GPU's when None.
            TensorRT-RTX counts all layers of the largest batch together, TensorRT each by itself.
        timings: file of the timing cache, used and brought up to date. TensorRT-RTX has none: it measures
            nothing when it builds, and compiles for the GPU at hand when the engine is opened.

    Raises:
        EngineRefused: TensorRT is not installed.
        InputError: it does not take the graph: names the node and the operator; ``workspace_mb`` is too
            little.
        EngineFailed: it could not build the network.
    """
    name, trt = library()
    log = logger(trt)
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # full TensorRT without a GPU
        raise InputError(f"{name} {trt.__version__} cannot build here: no NVIDIA GPU") from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise InputError(f"{name} {trt.__version__} does not take the graph: {_first_error(parser)}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # it is no FP32, and what stays FP32 has its reason
    if workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    shapes = builder.create_optimization_profile()
    shapes.set_shape(FRAMES, *((count, *size, 3) for count in (1, profile.best, profile.largest)))
    config.add_optimization_profile(shapes)
    cached = _timing_cache(config, timings) if name == "tensorrt" else nullcontext()
    with cached, _progress(trt) as monitor:
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        if workspace_mb is not None and any(words in log.last_error for words in _OUT_OF_WORKSPACE):
            raise InputError(
                f"--workspace-mb {workspace_mb}: too little for batches of {profile.largest}; give more, or a"
                " smaller --max-batch"
            )
        raise EngineFailed(f"{name} {trt.__version__} could not build it: {log.last_error}")
    return Plan(bytes(plan), name, trt.__version__, _half_share(trt, network))


def _network_flags(trt: ModuleType) -> int:
    """Ask for a strongly typed network; from TensorRT 11 on there is no other, and its number is another."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _half_share(trt: ModuleType, network: Any) -> float:
    """Read the share of convolutions in half from a network, whose types a strongly typed plan must keep."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    types = [layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    return types.count(trt.DataType.HALF) / max(1, len(types))


def _first_error(parser: Any) -> str:
    error = parser.get_error(0)
    node = f"node {error.node_name()}, {error.node_operator()}: " if error.node_name() else ""
    return one_line(RuntimeError(f"{node}{error.desc()}"))


@contextmanager
def _progress(trt: ModuleType) -> Iterator[Any]:
    """Show the phases of a build as they nest."""
    bars: dict[str, Any] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            bars[phase] = tqdm(total=steps, desc=phase, leave=False, disable=None, position=len(bars))

        def step_complete(self, phase: str, step: int) -> bool:
            bars[phase].update(step + 1 - bars[phase].n)
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            bars.pop(phase).close()

    try:
        yield Monitor()
    finally:
        for bar in bars.values():
            bar.close()


@contextmanager
def _timing_cache(config: Any, path: Path) -> Iterator[None]:
    """Let a build use what builds before it have timed, and add to that; one build at a time."""
    lock = os.open(path.with_name(f"{path.name}-lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # What another version or GPU left there is ignored, and written over.
        known = path.read_bytes() if path.exists() else b""
        cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
        used = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
        yield
        if used and (kept := config.get_timing_cache()) is not None:
            write_whole(path, bytes(kept.serialize()))
    finally:
        os.close(lock)
