"""The candidate for an NVIDIA GPU. TensorRT-RTX also builds without one; part of the proof waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime
from tqdm import tqdm

from engine_build.choose import Candidate
from engine_build.graph import Graph
from engine_build.half import half_share
from engine_build.tensorrt_plan import Profile, build_plan
from engine_runtime.cuda_driver import Gpu, gpu
from engine_runtime.engine import FRAMES, QUANTILES, SCORE
from engine_runtime.manifest import Precision, Runtime
from engine_runtime.proof import PARITY_LIMIT, ProofFailed, Reference
from engine_runtime.tensorrt_library import Library
from pictures.frames import Frame

MAX_BATCH: Final = 16
"""Frames per batch when nobody says otherwise: on a GPU larger batches save time, and cost little memory."""
TIMINGS: Final = ".tensorrt-timings"
"""File of the timing cache, beside the engines."""


@dataclass(frozen=True, kw_only=True)
class GpuCandidate(Candidate):
    """Runs on a GPU, which need not be in this machine."""

    library: Library | None = None
    """What built the plan; None where ONNX Runtime takes the graph itself."""
    present: Gpu | None
    """The GPU of this machine."""

    @property
    def runs_here(self) -> bool:
        """See ``Candidate.runs_here``."""
        return self.present is not None

    def described(self) -> dict[str, Any]:
        """See ``Candidate.described``."""
        return super().described() | {
            "payload": "model.onnx" if self.library is None else "engine.plan",
            "library": self.library,
            "executed_on": "cuda",
            "device": "built without a GPU" if self.present is None else self.present.name,
            "compute_capability": None if self.present is None else self.present.compute_capability,
        }


def candidate_for_gpu(
    graph: Graph,
    content: bytes,
    reference: Reference,
    frames: Sequence[Frame],
    *,
    runtime: Runtime,
    precision: Precision,
    profile: Profile,
    workspace_mb: int | None,
    folder: Path,
) -> GpuCandidate:
    """Compare the graph in its types with the reference, and only then build from it what a GPU runs.

    Args:
        graph: keeps contract 1.
        content: the same in the types of ``precision``.
        reference: the graph's answers to the frames.
        frames: H×W×3 uint8, BGR.
        runtime: tensorrt or onnxruntime.
        precision: fp16 or fp32; with TensorRT also int8.
        profile: batch sizes.
        workspace_mb: the most memory that the engine may use between its layers.
        folder: of the timing cache.

    Raises:
        InputError: the graph, or what it is to be built for, is wrong.
        ProofFailed: already the graph in its types does not compute what the FP32 graph does.
        EngineFailed: the runtime could not build it.
    """
    difference = _graph_difference(content, reference, frames, precision)
    library, share = None, half_share(content)
    if runtime == "tensorrt":
        timings = folder / TIMINGS
        plan = build_plan(content, graph.input_size, profile, workspace_mb=workspace_mb, timings=timings)
        content, library, share = plan.content, plan.library, plan.half_precision_share
    return GpuCandidate(
        runtime,
        content,
        tiles={},
        precision=precision,
        half_precision_share=share,
        graph_score_difference=difference,
        library=library,
        present=gpu(),
    )


def _graph_difference(
    content: bytes, reference: Reference, frames: Sequence[Frame], precision: Precision
) -> float:
    """Run the graph in its types on the CPU, which rounds as a GPU does, or more often.

    Returns:
        The largest difference of a score, as a share of the largest score.

    Raises:
        ProofFailed: an output is further from the FP32 graph than the precision allows.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    score = 0.0
    for row, frame in enumerate(tqdm(frames, desc="comparing", leave=False, disable=None)):
        answers = session.run(list(reference.outputs), {FRAMES: frame[None], QUANTILES: reference.quantiles})
        differences = reference.largest_differences(dict(zip(reference.outputs, answers, strict=True)), [row])
        for name, difference in differences.items():
            if difference > PARITY_LIMIT[precision]:
                raise ProofFailed(
                    f"in {precision} the graph's {name} differs from FP32 by {difference:.1e} of its largest"
                    f" value; {PARITY_LIMIT[precision]:.0e} is allowed"
                )
        score = max(score, differences[SCORE])
    return score
