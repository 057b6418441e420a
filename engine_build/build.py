"""ONNX in, verified engine file out."""

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from engine_build.bias import bf16_runner, border, corrected
from engine_build.choose import (
    CPU_RUNTIMES,
    Aim,
    Candidate,
    Settings,
    candidates,
    measurements,
    quantised_candidates,
)
from engine_build.device import usable_cores
from engine_build.for_gpu import MAX_BATCH, candidate_for_gpu
from engine_build.graph import Graph, read_graph
from engine_build.half import halved
from engine_build.parity_frames import generated_parity_frames, parity_frames_from
from engine_build.quantise import good_frames, quantised
from engine_build.reference import run_reference
from engine_build.tensorrt_plan import Profile
from engine_runtime.cuda_driver import gpu
from engine_runtime.engine_file import pack_parity, write_engine
from engine_runtime.manifest import (
    FORMAT_VERSION,
    MOST_BATCH_BYTES,
    Device,
    Manifest,
    Precision,
    Proof,
    Runtime,
)
from engine_runtime.open import load, runtime_module
from engine_runtime.proof import ProofFailed, Reference, proof_steps, prove
from engine_runtime.tensorrt_library import is_installed, library, refuse_old_driver
from foundation.errors import EngineRefused, InputError
from pictures.frames import Frame

_MOST_TRIED: Final = 8
_HARDLY_LONGER: Final = 1.1


def build(
    source: Path,
    target: Path,
    *,
    runtime: Runtime | None = None,
    device: Device = "cpu",
    precision: Precision | None = None,
    max_batch: int | None = None,
    parity_images: Path | None = None,
    good: Path | None = None,
    aim: Aim = "latency",
    threads: int | None = None,
    limit_s: float | None = 60.0,
    workspace_mb: int | None = None,
) -> Manifest:
    """Build the fastest engine for this machine, prove it, and only then write it.

    Args:
        source: ONNX file that keeps contract 1.
        target: engine file to write or replace.
        runtime: what will run the engine; when None, TensorRT where it and a GPU are, else the fastest one.
        device: where ``runtime`` onnxruntime is to compute; the other runtimes leave no choice.
        precision: what it computes in; when None, FP16 on a GPU and FP32 on a CPU.
        max_batch: the most frames of one batch; when None, the fewest, up to 8, with which a frame takes
            hardly longer than with any other number; on a GPU 16.
        parity_images: folder of frames to prove it on; generated ones when None, for INT8 good ones.
        good: folder of images of good parts, on which INT8 measures its ranges; on them, INT8 and BF16 are
            corrected where a model asks for nodes that stay FP32.
        aim: ``latency`` compares batches of one frame, ``throughput`` full ones.
        threads: to measure and prove with; when None, all cores this process may use, and half of them.
        limit_s: time to choose in; None takes the graph as it stands, with OpenVINO unless ``runtime`` says
            otherwise.
        workspace_mb: the most memory that the engine may use between its layers on a GPU.

    Raises:
        InputError: the ONNX file, the images or the options are wrong.
        ProofFailed: no engine computes what the graph computes.
        EngineFailed: the runtime raised.
    """
    runtimes, device, precision = _resolved(runtime, device, precision)
    graph = read_graph(source)
    good_for_ranges, frames = _frames(graph, precision, good, parity_images)
    if device == "cuda":
        max_batch = max_batch or MAX_BATCH
    largest = max_batch or _MOST_TRIED
    if largest * math.prod(graph.input_size) * 3 > MOST_BATCH_BYTES:
        raise InputError(
            f"{source}: --max-batch {largest}: expected at most {MOST_BATCH_BYTES} bytes, of frames of"
            f" {graph.input_size}; give a smaller one"
        )
    cores = usable_cores()
    settings = Settings(
        runtimes,
        threads or cores,
        1 if aim == "latency" else largest,
        limit_s or 0.0,
        (cores // 2,) if threads is None and cores > 1 else (),
    )
    try:
        with tqdm(desc="reference", total=2 * len(frames), leave=False, disable=None) as bar:
            reference = run_reference(graph, frames, bar.update)
        content = _in_precision(graph, good_for_ranges, precision, device)
        found: Sequence[Candidate]
        if device == "cuda":
            found = [
                candidate_for_gpu(
                    graph,
                    content,
                    reference,
                    frames,
                    runtime=runtimes[0],
                    precision=precision,
                    profile=Profile(settings.batch, largest),
                    workspace_mb=workspace_mb,
                    folder=target.parent,
                )
            ]
        elif limit_s is None or precision not in ("fp32", "int8"):
            found = [Candidate(runtimes[0], content, {}, precision=precision)]
        elif precision == "int8":
            found = quantised_candidates(graph, content, good_for_ranges[0], settings)
        else:
            found = candidates(graph, frames[0], settings)
        prepared = _Prepared(graph, reference, frames, max_batch, threads)
        wanted = [candidate for candidate in found if candidate.precision == precision]
        chosen, manifest = _first_proven(wanted, prepared)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    manifest = manifest.model_copy(update={"measured": measurements(found, chosen, settings)})
    parity = None
    if not manifest.proof.complete:
        parity = pack_parity(frames, reference)
        manifest = manifest.model_copy(update={"parity_sha256": hashlib.sha256(parity).hexdigest()})
    write_engine(target, manifest, chosen.content, parity)
    return manifest


def _resolved(
    runtime: Runtime | None, device: Device, precision: Precision | None
) -> tuple[Sequence[Runtime], Device, Precision]:
    """Choose what was left open, and refuse what is not there before a file is read.

    Raises:
        InputError: the runtime is not installed, or does not compute on the device or in the precision.
    """
    if device == "cuda":
        if runtime != "onnxruntime":
            raise InputError("--device cuda: is for --runtime onnxruntime; TensorRT always runs on a GPU")
        try:
            runtime_module(runtime).refuse_without_cuda()
        except EngineRefused as error:
            raise InputError(f"--device cuda: {error}") from error
        return (runtime,), device, _one_of(("fp16", "fp32"), precision, "ONNX Runtime")
    if runtime is None and precision in (None, "fp16") and is_installed() and gpu() is not None:
        runtime = "tensorrt"
    if runtime == "tensorrt":
        library()
        if (present := gpu()) is not None:
            refuse_old_driver(present)
        return (runtime,), "cuda", _one_of(("fp16", "fp32", "int8"), precision, "TensorRT")
    if runtime is not None:
        runtime_module(runtime)
    return CPU_RUNTIMES if runtime is None else (runtime,), device, precision or "fp32"


def _one_of(known: Sequence[Precision], precision: Precision | None, runtime: str) -> Precision:
    """Refuse what a runtime does not compute in on a GPU; what it computes in first is taken by default."""
    if precision is not None and precision not in known:
        raise InputError(f"--precision {precision}: {runtime} on a GPU computes in {', '.join(known)}")
    return precision or known[0]


def _frames(
    graph: Graph, precision: Precision, good: Path | None, parity_images: Path | None
) -> tuple[list[Frame], list[Frame]]:
    """Give the good frames on which a low precision is measured, if any, and those of the proof."""
    for_ranges: list[Frame] = []
    if precision == "int8":
        if good is None:
            raise InputError("--precision int8: needs images of good parts to measure ranges on: --good DIR")
        for_ranges, proof_frames = good_frames(good, graph)
    elif good is not None:
        if precision != "bf16" or not border(graph):
            raise InputError(
                "--good: is for --precision int8, and for bf16 of models with nodes that stay FP32"
            )
        for_ranges, _ = good_frames(good, graph)
    if parity_images is not None:
        proof_frames = parity_frames_from(parity_images, graph.input_size)
    elif precision != "int8":
        proof_frames = generated_parity_frames(graph.input_size)
    return for_ranges, proof_frames


def _in_precision(graph: Graph, good: Sequence[Frame], precision: Precision, device: Device) -> bytes:
    """Give the graph in its types; what only the runtime rounds, as in BF16, is corrected at most."""
    if precision == "int8":
        with tqdm(desc="measuring ranges", total=len(good), leave=False, disable=None) as bar:
            return quantised(graph, good, bar.update, symmetric=device == "cuda")
    if precision == "bf16" and good:
        with tqdm(desc="measuring the shift", total=len(good), leave=False, disable=None) as bar:
            return corrected(graph.content, bf16_runner(graph), graph, good, bar.update)
    return halved(graph) if precision == "fp16" and device == "cuda" else graph.content


class _Prepared(NamedTuple):
    """What every candidate is proven with."""

    graph: Graph
    reference: Reference
    frames: Sequence[Frame]
    max_batch: int | None
    threads: int | None


def _first_proven(found: Sequence[Candidate], prepared: _Prepared) -> tuple[Candidate, Manifest]:
    """Give the first candidate that computes what the graph computes, and its manifest.

    Raises:
        ProofFailed, EngineRefused: none does; what the last one, the slowest, was refused for.
    """
    passed_over: list[str] = []
    for candidate in found:
        try:
            manifest = _proven(candidate, prepared)
        except (ProofFailed, EngineRefused) as error:
            if candidate is found[-1]:
                raise
            passed_over.append(f"{candidate.runtime}, {len(candidate.tiles)} rewritten: {error}")
        else:
            break
    for failure in passed_over:
        print(f"passed over: {failure}", file=sys.stderr)
    return candidate, manifest


def _proven(candidate: Candidate, prepared: _Prepared) -> Manifest:
    """Give the manifest with the proof, or with as much of it as can be had without what it runs on."""
    graph, reference, frames = prepared.graph, prepared.reference, prepared.frames
    unproven = Proof(
        parity_frames=len(frames),
        largest_score_difference=None,
        batch_rows_equal=None,
        half_precision_share=candidate.half_precision_share,
        latency_ms={},
        graph_score_difference=candidate.graph_score_difference,
    )
    manifest = Manifest(
        **candidate.described(),
        format_version=FORMAT_VERSION,
        model=graph.name,
        input_size=graph.input_size,
        map_size=reference.map_size,
        max_batch=prepared.max_batch or _MOST_TRIED,
        outputs=graph.outputs,
        maps=graph.maps,
        source_sha256=graph.source_sha256,
        model_metadata=graph.metadata,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("inspectd"),
        proof=unproven,
    )
    if not candidate.runs_here:
        return manifest
    engine = load(manifest, candidate.content, prepared.threads)
    steps = proof_steps(len(frames), manifest.max_batch)
    try:
        with tqdm(desc="proving", total=steps, leave=False, disable=None) as bar:
            proof = prove(engine, reference, frames, bar.update)
    finally:
        engine.close()
    proof = proof.model_copy(update={"graph_score_difference": candidate.graph_score_difference})
    most = prepared.max_batch or _worthwhile(proof.latency_ms)
    return manifest.model_copy(update={"proof": proof, "max_batch": most})


def _worthwhile(latency_ms: Mapping[int, float]) -> int:
    """Choose a batch size: what larger batches do not save, they cost in memory and in waiting."""
    per_frame = {size: latency / size for size, latency in latency_ms.items()}
    return min(size for size, took in per_frame.items() if took <= _HARDLY_LONGER * min(per_frame.values()))
