"""ONNX in, verified engine file out."""

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from engine_build.device import cpu_name
from engine_build.graph import read_graph
from engine_build.parity_frames import generated_parity_frames, parity_frames_from
from engine_build.proof import proof_steps, prove
from engine_build.reference import run_reference
from engine_runtime.engine import OUTPUTS
from engine_runtime.engine_file import write_engine
from engine_runtime.errors import InputError
from engine_runtime.manifest import FORMAT_VERSION, Manifest, Precision, Runtime
from engine_runtime.open import load, runtime_module


def build(
    source: Path,
    target: Path,
    *,
    runtime: Runtime,
    precision: Precision,
    max_batch: int,
    parity_images: Path | None,
) -> Manifest:
    """Build an engine for this machine, prove it, and only then write it.

    Args:
        source: ONNX file that keeps contract 1.
        target: engine file to write or replace.
        runtime: what will run the engine.
        precision: what it computes in.
        max_batch: the most frames of one batch.
        parity_images: folder of frames to prove it on; generated ones when None.

    Raises:
        InputError: the ONNX file, the images or the options are wrong.
        ProofFailed: the engine does not compute what the graph computes.
        EngineFailed: the runtime raised.
    """
    module = runtime_module(runtime)
    graph = read_graph(source)
    if parity_images is None:
        frames = generated_parity_frames(graph.input_size)
    else:
        frames = parity_frames_from(parity_images, graph.input_size)
    steps = 2 * len(frames) + proof_steps(len(frames), max_batch)
    with tqdm(desc="proving", total=steps, leave=False, disable=None) as bar:
        try:
            reference = run_reference(graph, frames, bar.update)
            # The proof needs the engine and the manifest needs the proof: this one still lacks it.
            unproven = Manifest.model_construct(
                format_version=FORMAT_VERSION,
                model=graph.name,
                runtime=runtime,
                runtime_version=module.VERSION,
                precision=precision,
                input_size=graph.input_size,
                map_size=reference.map_size,
                max_batch=max_batch,
                outputs=OUTPUTS,
                payload="model.onnx",
                payload_sha256=hashlib.sha256(graph.content).hexdigest(),
                source_sha256=graph.source_sha256,
                device=cpu_name(),
                compute_capability=None,
                model_metadata=graph.metadata,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                tool_version=version("inspectd"),
            )
            engine = load(unproven, graph.content)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        try:
            proof = prove(engine, reference, frames, bar.update)
        finally:
            engine.close()
    manifest = Manifest.model_validate({**dict(unproven), "proof": proof})
    write_engine(target, manifest, graph.content)
    return manifest
