"""Runs an exported graph where no engine has been built of it."""

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from engine_runtime.engine import FRAMES, MAPS, QUANTILES, map_output, uncalibrated


def run_graph(graph: onnx.ModelProto, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Give the maps of frames, N×H×W×3 uint8, BGR, before normalisation, by their names."""
    names = next(entry.value for entry in graph.metadata_props if entry.key == MAPS).split(",")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", settings)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for frame in frames:
        result = compiled({FRAMES: frame[None], QUANTILES: uncalibrated(names)})
        for name in names:
            found[name].append(result[map_output(name)].copy())
    return {name: np.concatenate(maps) for name, maps in found.items()}
