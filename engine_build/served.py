"""A model for inference servers, and the engine file by which lines have it judge there."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from tqdm import tqdm

from engine_build.graph import Graph, read_graph
from engine_build.parity_frames import generated_parity_frames, parity_frames_from
from engine_build.reference import run_reference
from engine_build.triton_repository import ServedModel, write_model
from engine_runtime.engine import Quantiles
from engine_runtime.engine_file import pack_parity, write_engine
from engine_runtime.manifest import FORMAT_VERSION, Manifest, Proof, Server
from engine_runtime.served_model import payload_of
from foundation.errors import InputError
from foundation.files import write_whole
from foundation.yaml_file import read_text, read_yaml

MAX_BATCH: Final = 16
_A_CALIBRATION: Final = "a file written by calibrate"
_SHA256: Final = re.compile("[0-9a-f]{64}")


class Served(NamedTuple):
    """What was written."""

    model: ServedModel
    engine: Path | None
    calibration: Path | None


def serve(
    source: Path,
    repository: Path,
    calibration: Path,
    *,
    name: str | None = None,
    addresses: Sequence[str] = (),
    timeout_ms: float = 200,
    engine: Path | None = None,
    max_batch: int | None = None,
    parity_images: Path | None = None,
) -> Served:
    """Write a model into a server's repository; with addresses, also the engine by which lines use it.

    The engine is proven when it is opened: a server has to give what the graph gives on the parity frames.

    Args:
        source: ONNX file that keeps contract 1.
        repository: folder of the server's models.
        calibration: made on an engine of this graph; its quantiles go into the model.
        name: of the model on the server; the graph's own when None.
        addresses: of the servers; without any, no engine is written.
        timeout_ms: for an answer of one server.
        engine: file to write; beside it a calibration gets its name with ``.calibration.yaml``.
        max_batch: the most frames of one batch.
        parity_images: folder of frames to prove it on; generated ones when None.

    Raises:
        InputError: a file is wrong, the calibration is of another model, or something cannot be written.
    """
    graph = read_graph(source)
    text = read_text(calibration, _A_CALIBRATION)
    made_on, quantiles = _quantiles_in(calibration, text, graph)
    frames = (
        generated_parity_frames(graph.input_size)
        if parity_images is None
        else parity_frames_from(parity_images, graph.input_size)
    )
    try:
        with tqdm(desc="reference", total=2 * len(frames), leave=False, disable=None) as bar:
            reference = run_reference(graph, frames, bar.update, quantiles)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    most = max_batch or MAX_BATCH
    model = write_model(
        repository, name or graph.name, graph, quantiles, map_size=reference.map_size, max_batch=most
    )
    if engine is None or not addresses:
        return Served(model, None, None)
    payload, parity = payload_of(model.sha256, tuple(graph.maps), quantiles), pack_parity(frames, reference)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model=graph.name,
        runtime="kserve",
        runtime_version="2",
        precision="fp32",
        input_size=graph.input_size,
        map_size=reference.map_size,
        max_batch=most,
        outputs=graph.outputs,
        maps=graph.maps,
        payload="server.json",
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        source_sha256=graph.source_sha256,
        device="server",
        model_metadata=graph.metadata,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("inspectd"),
        server=Server(
            addresses=tuple(addresses), model=model.name, version=model.version, timeout_ms=timeout_ms
        ),
        proof=Proof(
            parity_frames=len(frames),
            largest_score_difference=None,
            batch_rows_equal=None,
            half_precision_share=0,
            latency_ms={},
        ),
        parity_sha256=hashlib.sha256(parity).hexdigest(),
    )
    write_engine(engine, manifest, payload, parity)
    beside = engine.with_suffix(".calibration.yaml")
    write_whole(beside, text.replace(made_on.encode(), manifest.payload_sha256.encode()))
    return Served(model, engine, beside)


def _quantiles_in(path: Path, text: bytes, graph: Graph) -> tuple[str, Quantiles]:
    """Give the hash of the engine that a calibration was made on, and its quantiles, K×2."""
    content = read_yaml(path, _A_CALIBRATION, text).content
    made_on, found = content.get("engine_sha256"), content.get("quantiles")
    if not isinstance(made_on, str) or not _SHA256.fullmatch(made_on) or not isinstance(found, dict):
        raise InputError(f"{path}: found no engine_sha256 and quantiles; expected {_A_CALIBRATION}")
    if content.get("model") != graph.name or set(found) != set(graph.maps):
        raise InputError(
            f"{path}: is of model {content.get('model')} with the maps {', '.join(map(str, found))}; "
            f"expected {graph.name} with {', '.join(graph.maps)}"
        )
    try:
        quantiles = np.array([found[name] for name in graph.maps], np.float32).reshape(len(graph.maps), 2)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: quantiles: expected two numbers for each map") from error
    if not np.isfinite(quantiles).all() or not (quantiles[:, 0] < quantiles[:, 1]).all():
        raise InputError(f"{path}: quantiles: expected a smaller and a larger number for each map")
    return made_on, quantiles
