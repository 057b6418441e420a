"""Runs the ONNX payload with OpenVINO on the CPU."""

from collections.abc import Sequence

import numpy as np
import openvino
from numpy.typing import NDArray

from engine_runtime.batch import Batch, check_quantiles
from engine_runtime.engine import ANOMALY_MAP, FRAMES, QUANTILES, SCORE, Quantiles, Runner
from engine_runtime.manifest import FP32_NODES, Manifest, Precision, names_in
from engine_runtime.openvino_cut import cut
from foundation.errors import EngineFailed, EngineRefused
from pictures.frames import Frame

VERSION: str = openvino.__version__.split("-")[0]


class OpenVinoEngine:
    """One compiled model with a dynamic batch dimension and one infer request.

    In bfloat16, what the model wants in FP32 is a second one, which reads what the first gives.
    A compiled model per batch size was measured too: no faster, and twice the memory (docs/engines.md).
    """

    trouble = None
    """See ``Engine.trouble``: it judges, or it raises."""

    def __init__(self, manifest: Manifest, payload: bytes, threads: int | None) -> None:
        if manifest.precision == "fp16":
            raise EngineRefused(f"precision is {manifest.precision}; OpenVINO runs fp32, bf16 and int8")
        self.manifest = manifest
        self._batch = Batch(manifest.input_size, manifest.max_batch)
        model = openvino.Core().read_model(payload)
        exact = names_in(manifest.model_metadata, FP32_NODES)
        parts = cut(model, exact) if manifest.precision == "bf16" and exact else None
        if parts is None:
            self._models = [_compiled(model, threads, manifest.precision)]
            self._joints: Sequence[str] = ()
        else:
            self._models = [_compiled(parts.first, threads, "bf16"), _compiled(parts.rest, threads, "fp32")]
            self._joints = parts.joints
        *self._before, self._request = (compiled.create_infer_request() for compiled in self._models)

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``."""
        check_quantiles(quantiles, self.manifest)
        batch = self._batch.gather(frames)
        try:
            given: dict[str, object] = {FRAMES: batch, QUANTILES: quantiles}
            for request in self._before:
                request.infer(given, share_inputs=True)
                given |= {name: request.get_output_tensor(k) for k, name in enumerate(self._joints)}
            self._request.infer(given, share_inputs=True)
            return {
                name: self._request.get_tensor(name).data.astype(np.float32, copy=True) for name in outputs
            }
        except RuntimeError as error:
            raise EngineFailed(f"OpenVINO failed: {error}") from error

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``."""
        types = [
            node.get_rt_info()["runtimePrecision"].astype(str)
            for compiled in self._models
            for node in compiled.get_runtime_model().get_ops()
            if node.get_rt_info()["layerType"].astype(str) == "Convolution"
        ]
        return sum(kind in ("f16", "bf16") for kind in types) / max(1, len(types))

    def close(self) -> None:
        """See ``Engine.close``."""
        del self._request, self._before, self._models


def _compiled(model: openvino.Model, threads: int | None, precision: Precision) -> openvino.CompiledModel:
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineRefused("precision is bf16, and this CPU has no bfloat16")
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        # By itself OpenVINO may pick bfloat16 on a CPU that has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # Several lanes and the camera processes share the cores: leave the placing to the kernel.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", settings)


def runner(payload: bytes, threads: int | None, precision: Precision = "fp32") -> Runner:
    """Load any ONNX graph as an engine is loaded, so that it can be timed, or run in part."""
    model = openvino.Core().read_model(payload)
    request = _compiled(model, threads, precision).create_infer_request()
    return lambda inputs: request.infer(inputs, share_inputs=True, share_outputs=True)


load = OpenVinoEngine
