"""The truth an engine is held against: the ONNX graph as it stands, in FP32, without any optimisation."""

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_build.graph import Graph
from engine_runtime.engine import (
    ANOMALY_MAP,
    FRAMES,
    QUANTILES,
    SCORE,
    Quantiles,
    uncalibrated,
)
from engine_runtime.open import one_line
from engine_runtime.proof import Reference
from foundation.errors import InputError
from pictures.frames import Frame
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS, map_quantiles, weighted, weights_in


def run_reference(
    graph: Graph, frames: Sequence[Frame], advance: Callable[[], object], quantiles: Quantiles | None = None
) -> Reference:
    """Run every frame alone through ONNX Runtime with all graph optimisations off.

    Args:
        graph: keeps contract 1 by its declared inputs and outputs.
        frames: H×W×3 uint8, BGR, of the graph's input size.
        advance: called after each of the ``2 * len(frames)`` runs.
        quantiles: K×2, with which answers are wanted; measured on the frames when None.

    Raises:
        InputError: the graph cannot be run, its outputs have other shapes than contract 1 says, its maps are
            the same everywhere, or a value is NaN or infinite.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])

        def run(given: Quantiles) -> dict[str, NDArray[np.float32]]:
            rows = []
            for frame in frames:
                rows.append(session.run(list(graph.outputs), {FRAMES: frame[None], QUANTILES: given}))
                advance()
            return {
                name: np.concatenate(arrays).astype(np.float32)
                for name, arrays in zip(graph.outputs, zip(*rows, strict=True), strict=True)
            }

        raw = run(uncalibrated(graph.maps))
        _check_shapes(raw, len(frames))
        if quantiles is None:
            quantiles = _quantiles(graph, raw)
        outputs = run(quantiles)
    except InputError:
        raise
    except Exception as error:  # ONNX Runtime's exception classes have no ancestor of their own
        raise InputError(f"ONNX Runtime does not run the graph: {one_line(error)}") from error
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise InputError(f"the graph's {name} is NaN or infinite on a parity frame")
    return Reference(quantiles, outputs)


def _check_shapes(outputs: dict[str, NDArray[np.float32]], count: int) -> None:
    map_shape = outputs[ANOMALY_MAP].shape
    for name, values in outputs.items():
        expected = (count,) if name == SCORE else map_shape
        if values.shape != expected or len(map_shape) != 3:
            raise InputError(
                f"{count} frames give {name} of shape {values.shape}; "
                f"expected score N and maps N×h×w of one size"
            )


def _quantiles(graph: Graph, outputs: dict[str, NDArray[np.float32]]) -> Quantiles:
    """Give quantiles with which scores have a magnitude that differences can be held against.

    Those of calibration, but with ``peaks`` the map itself, of which the largest value becomes 0.1: z-scores
    of frames that are no good parts would make a difference look as large as these frames happen to be alike.
    """
    maps = graph.maps.values()
    largest = graph.metadata.get(MAP_NORMALISATION) == PEAKS
    for name in maps:
        values = outputs[name]
        if not np.isfinite(values).all():
            raise InputError(f"the graph's {name} is NaN or infinite on a parity frame")
        if not np.ptp(values) > 0 and (len(values) > 1 or not largest):
            raise InputError(
                f"the graph's {name} is {values.max():g} all over the parity frames: it sees nothing in them"
            )
    if largest:
        quantiles = np.array([[0, np.abs(outputs[name]).max()] for name in maps], dtype=np.float32)
    else:
        quantiles = np.stack([map_quantiles(outputs[name]) for name in maps])
    return weighted(quantiles, weights_in(graph.metadata, len(maps)))
