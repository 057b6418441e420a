"""Runs the ONNX payload with ONNX Runtime on the CPU."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_runtime.batch import Batch
from engine_runtime.engine import ANOMALY_MAP, FRAMES, QUANTILES, SCORE, Quantiles, Runner
from engine_runtime.errors import EngineFailed, EngineRefused
from engine_runtime.frames import Frame
from engine_runtime.manifest import Manifest

VERSION: str = onnxruntime.__version__


class OnnxRuntimeEngine:
    """One session on the CPU."""

    def __init__(self, manifest: Manifest, payload: bytes, threads: int | None) -> None:
        if manifest.precision not in {"fp32", "int8"}:
            raise EngineRefused(f"precision is {manifest.precision}; ONNX Runtime runs fp32 and int8")
        self.manifest = manifest
        self._batch = Batch(manifest.input_size, manifest.max_batch)
        self._session = _session(payload, threads)

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``."""
        batch = self._batch.gather(frames)
        try:
            results = self._session.run(list(outputs), {FRAMES: batch, QUANTILES: quantiles})
        except Exception as error:  # its exception classes have no ancestor of their own
            raise EngineFailed(f"ONNX Runtime failed: {error}") from error
        return {
            name: result.astype(np.float32, copy=True) for name, result in zip(outputs, results, strict=True)
        }

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``: on the CPU every operator runs in the graph's own FP32."""
        return 0.0

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


def runner(payload: bytes, threads: int | None) -> Runner:
    """Load any ONNX graph as an engine is loaded, so that it can be timed."""
    session = _session(payload, threads)
    return lambda inputs: session.run(None, inputs)


load = OnnxRuntimeEngine
