"""ONNX in, engine for an NVIDIA GPU out. TensorRT-RTX also builds without one; part of the proof waits."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import onnxruntime
from tqdm import tqdm

from engine_build.described import described
from engine_build.graph import Graph
from engine_build.half import half_share, halved
from engine_build.quantise import quantised
from engine_build.reference import run_reference
from engine_build.tensorrt_plan import Profile, build_plan
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine import FRAMES, QUANTILES, SCORE
from engine_runtime.engine_file import pack_parity, write_engine
from engine_runtime.manifest import Manifest, Precision, Proof, Runtime
from engine_runtime.open import load
from engine_runtime.proof import PARITY_LIMIT, ProofFailed, Reference, proof_steps, prove
from engine_runtime.tensorrt_library import Library
from pictures.frames import Frame

MAX_BATCH: Final = 16
"""Frames per batch when nobody says otherwise: on a GPU larger batches save time, and cost little memory."""
TIMINGS: Final = ".tensorrt-timings"
"""File of the timing cache, beside the engines."""


class _Payload(NamedTuple):
    content: bytes
    name: str
    version: str
    library: Library | None
    half_precision_share: float


def build_for_gpu(
    graph: Graph,
    frames: Sequence[Frame],
    good: Sequence[Frame],
    target: Path,
    *,
    runtime: Runtime,
    precision: Precision,
    profile: Profile,
    workspace_mb: int | None,
) -> Manifest:
    """Build an engine for a GPU, prove what can be proven here, and only then write it.

    Args:
        graph: keeps contract 1.
        frames: to prove it on, H×W×3 uint8, BGR.
        good: frames of good parts, on which INT8 measures its ranges; for the others none are needed.
        target: engine file to write or replace.
        runtime: tensorrt or onnxruntime.
        precision: fp16 or fp32; with TensorRT also int8.
        profile: batch sizes.
        workspace_mb: the most memory that the engine may use between its layers.

    Raises:
        InputError: the graph, or what it is to be built for, is wrong.
        ProofFailed: the engine, or already its graph in half precision, does not compute what the graph does.
        EngineFailed: the runtime could not build or run it.
    """
    with tqdm(desc="reference", total=2 * len(frames), leave=False, disable=None) as bar:
        reference = run_reference(graph, frames, bar.update)
    content = _in_precision(graph, good, precision)
    difference = _graph_difference(content, reference, frames, precision)
    if runtime == "tensorrt":
        timings = target.with_name(TIMINGS)
        plan = build_plan(content, graph.input_size, profile, workspace_mb=workspace_mb, timings=timings)
        payload = _Payload(plan.content, "engine.plan", plan.version, plan.library, plan.half_precision_share)
    else:
        payload = _Payload(content, "model.onnx", onnxruntime.__version__, None, half_share(content))
    present = gpu()
    proof = Proof(
        parity_frames=len(frames),
        largest_score_difference=None,
        batch_rows_equal=None,
        half_precision_share=payload.half_precision_share,
        latency_ms={},
        graph_score_difference=difference,
    )
    manifest = Manifest(
        **described(graph, reference, payload.content),
        runtime=runtime,
        runtime_version=payload.version,
        library=payload.library,
        executed_on="cuda",
        precision=precision,
        max_batch=profile.largest,
        payload=payload.name,
        device="built without a GPU" if present is None else present.name,
        compute_capability=None if present is None else present.compute_capability,
        proof=proof,
    )
    if present is None:
        parity = pack_parity(frames, reference)
        manifest = manifest.model_copy(update={"parity_sha256": hashlib.sha256(parity).hexdigest()})
        write_engine(target, manifest, payload.content, parity)
        return manifest
    engine = load(manifest, payload.content)
    try:
        steps = proof_steps(len(frames), profile.largest)
        with tqdm(desc="proving", total=steps, leave=False, disable=None) as bar:
            proof = prove(engine, reference, frames, bar.update)
    finally:
        engine.close()
    proof = proof.model_copy(update={"graph_score_difference": difference})
    manifest = manifest.model_copy(update={"proof": proof})
    write_engine(target, manifest, payload.content)
    return manifest


def _in_precision(graph: Graph, good: Sequence[Frame], precision: Precision) -> bytes:
    match precision:
        case "fp16":
            return halved(graph)
        case "int8":
            with tqdm(desc="measuring ranges", total=len(good), leave=False, disable=None) as bar:
                return quantised(graph, good, bar.update, symmetric=True)
        case _:
            return graph.content


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
