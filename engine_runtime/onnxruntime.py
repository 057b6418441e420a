"""Runs the ONNX payload with ONNX Runtime, on the CPU or an NVIDIA GPU."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_runtime.batch import Batch, check_quantiles
from engine_runtime.cuda_driver import needed_gpu
from engine_runtime.engine import ANOMALY_MAP, FRAMES, QUANTILES, SCORE, Quantiles, Runner
from engine_runtime.manifest import Device, Manifest, Precision
from foundation.errors import EngineFailed, EngineRefused
from pictures.frames import Frame

VERSION: str = onnxruntime.__version__

_CUDA = "CUDAExecutionProvider"
_PRECISIONS: dict[Device, tuple[Precision, ...]] = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}


class OnnxRuntimeEngine:
    """One session; on a GPU it copies frames in and results out by itself."""

    trouble = None
    """See ``Engine.trouble``: it judges, or it raises."""

    def __init__(self, manifest: Manifest, payload: bytes, threads: int | None) -> None:
        device = manifest.executed_on
        if manifest.precision not in _PRECISIONS[device]:
            here = " and ".join(_PRECISIONS[device])
            raise EngineRefused(f"precision is {manifest.precision}; ONNX Runtime runs {here} on {device}")
        self.manifest = manifest
        self._batch = Batch(manifest.input_size, manifest.max_batch)
        self._session = _session(payload, threads) if device == "cpu" else _session_on_gpu(payload)

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``."""
        check_quantiles(quantiles, self.manifest)
        batch = self._batch.gather(frames)
        try:
            results = self._session.run(list(outputs), {FRAMES: batch, QUANTILES: quantiles})
        except Exception as error:  # its exception classes have no ancestor of their own
            raise EngineFailed(f"ONNX Runtime failed: {error}") from error
        return {
            name: result.astype(np.float32, copy=True) for name, result in zip(outputs, results, strict=True)
        }

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``: every operator runs in the types that the graph gives it."""
        return self.manifest.proof.half_precision_share if self.manifest.executed_on == "cuda" else 0.0

    def close(self) -> None:
        """See ``Engine.close``."""
        del self._session


def _session(payload: bytes, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Spinning threads would burn the cores that the cameras and the other lanes need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # The fallback prints what is wrong with a graph to stdout and tries the same once more.
    return onnxruntime.InferenceSession(
        payload, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def refuse_without_cuda() -> None:
    """Refuse where ONNX Runtime would compute on the CPU instead, and say nothing.

    Raises:
        EngineRefused: there is no GPU that works, or the ONNX Runtime that is installed is the one for CPUs.
    """
    needed_gpu()
    if _CUDA not in onnxruntime.get_available_providers():
        raise EngineRefused(
            f"ONNX Runtime {VERSION} as it is installed here has no CUDA: pip uninstall onnxruntime, then pip"
            " install onnxruntime-gpu"
        )


def _session_on_gpu(payload: bytes) -> onnxruntime.InferenceSession:
    """Make a session that computes on the GPU; what tells shapes alone may stay on the CPU.

    Raises:
        EngineRefused: see ``refuse_without_cuda``; or CUDA's libraries are missing or do not fit.
    """
    refuse_without_cuda()
    with redirect_stdout(io.StringIO()):  # where it prints what it does not find
        onnxruntime.preload_dlls()  # finds the CUDA that pip has installed
    onnxruntime.set_default_logger_severity(4)  # it would fill pages with what is one line here
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # A search over all algorithms would hold up the first batch of every size; TF32 is no FP32.
    settings = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    session = onnxruntime.InferenceSession(payload, options, providers=[(_CUDA, settings)], enable_fallback=0)
    if session.get_providers()[0] != _CUDA:
        raise EngineRefused(
            f"ONNX Runtime {VERSION} would compute on the CPU: CUDA or cuDNN is missing, or not of the"
            " version that it needs"
        )
    return session


def runner(payload: bytes, threads: int | None) -> Runner:
    """Load any ONNX graph as an engine is loaded, so that it can be timed."""
    session = _session(payload, threads)
    return lambda inputs: session.run(None, inputs)


load = OnnxRuntimeEngine
