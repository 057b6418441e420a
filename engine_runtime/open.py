"""Opens an engine file with the runtime it names."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np

from engine_runtime.engine import SCORE, Engine, uncalibrated
from engine_runtime.engine_file import read_engine, read_parity
from engine_runtime.manifest import Manifest, Runtime
from engine_runtime.proof import ProofFailed, refuse_difference
from engine_runtime.signatures import TrustedKeys
from foundation.errors import (
    EngineAway,
    EngineFailed,
    EngineRefused,
    EngineUnavailable,
    GpuNotWorking,
    InputError,
)


def open_engine(path: Path, *, threads: int | None = None, trusted: TrustedKeys | None = None) -> Engine:
    """Read, check, load and warm up an engine.

    The payload of a CPU engine is an ONNX graph that is compiled here and now, so another CPU than the one it
    was built on is accepted.

    Args:
        path: a file written by ``build-engine``.
        threads: threads that one inference may use; those of the manifest when None, else all cores.
        trusted: one of these keys must have signed it; None where its origin does not matter.

    Raises:
        GpuNotWorking: the GPU that it needs does not answer now.
        EngineRefused: the file is missing, not signed, damaged, altered, of an unknown format, made for a
            runtime that is not installed or a device that is not here, or the runtime does not accept it.
    """
    manifest, payload = read_engine(path, trusted)
    try:
        engine = load(manifest, payload, threads)
        if manifest.server is not None:
            _prove_server(path, engine)
        return engine
    except (GpuNotWorking, EngineUnavailable) as error:
        raise type(error)(f"{path}: {error}") from error
    except InputError as error:
        raise EngineRefused(f"{path}: {error}") from error


def load(manifest: Manifest, payload: bytes, threads: int | None = None) -> Engine:
    """Load and warm up a payload that is known to be sound.

    Raises:
        EngineRefused: as ``open_engine``, without the file's name.
    """
    module = runtime_module(manifest.runtime)
    if threads is None:
        threads = _threads(manifest)
    try:
        engine = cast(Engine, module.load(manifest, payload, threads))
        _warm_up(engine)
    except EngineRefused:
        raise
    except EngineAway as error:
        raise EngineUnavailable(str(error)) from error
    except Exception as error:
        # Every runtime has its own exceptions, and what they say of a graph fills many lines.
        raise EngineRefused(
            f"{manifest.runtime} {module.VERSION} does not accept it: {one_line(error)}"
        ) from error
    return engine


def _prove_server(path: Path, engine: Engine) -> None:
    """See that a server computes what the graph computes: it may have been given another model since.

    Raises:
        EngineRefused: it computes something else; ``EngineUnavailable`` while none answers.
    """
    frames, reference = read_parity(path, engine.manifest)
    most = engine.manifest.max_batch
    try:
        for start in range(0, len(frames), most):
            rows = range(start, min(start + most, len(frames)))
            batch = [frames[row] for row in rows]
            results = engine.infer(batch, reference.quantiles, engine.manifest.outputs)
            differences = reference.largest_differences(results, rows)
            refuse_difference(engine.manifest.precision, differences, len(batch))
    except (ProofFailed, EngineFailed) as error:
        engine.close()
        refused = EngineUnavailable if isinstance(error, EngineAway) else EngineRefused
        raise refused(str(error)) from error


def _threads(manifest: Manifest) -> int | None:
    """Choose how many threads an inference takes; None leaves it to the runtime."""
    usable = len(os.sched_getaffinity(0))
    if manifest.threads is not None:
        return min(manifest.threads, usable)
    # Where this process may not use all cores, ONNX Runtime would tie threads to the others all the same.
    return None if usable == os.cpu_count() else usable


def runtime_module(runtime: Runtime) -> ModuleType:
    """Import the module ``engine_runtime.<runtime>``, which brings ``load`` and ``VERSION``.

    Raises:
        EngineRefused: this version has no such module, or the runtime itself is not installed.
    """
    name = f"engine_runtime.{runtime}"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name == name:
            raise EngineRefused(f"runtime {runtime}: this version of inspectd does not have it") from error
        raise EngineRefused(f"runtime {runtime} is not installed here ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """Fold what a runtime's exception says into one line of at most 300 characters."""
    lines = str(error).splitlines()
    # OpenVINO says first where in its sources it raised, then what happened.
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))] or lines
    text = " ".join(" ".join(telling).split())
    return text if len(text) <= 300 else f"{text[:299]}…"


def _warm_up(engine: Engine) -> None:
    """Run the smallest and the largest batch: kernels and buffers are made, and the sizes proven to fit."""
    size, map_size = engine.manifest.input_size, engine.manifest.map_size
    frame = np.full((*size, 3), 128, dtype=np.uint8)
    for count in {1, engine.manifest.max_batch}:
        results = engine.infer([frame] * count, uncalibrated(engine.manifest.maps), engine.manifest.outputs)
        for name, result in results.items():
            expected = (count,) if name == SCORE else (count, *map_size)
            if result.shape != expected:
                raise EngineFailed(f"output {name!r} has shape {result.shape}, the manifest says {expected}")
