"""Judges with a graph of which no engine has been built yet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from engine_build.graph import read_graph
from engine_runtime.engine import ANOMALY_MAP, FRAMES, QUANTILES, SCORE
from engine_runtime.open import one_line
from foundation.errors import EngineFailed, InputError
from models.evaluation.judge import BATCH, Judgement, trained_quantiles
from pictures.frames import Frame, Size
from pictures.heatmap import MapGeometry
from pictures.trained_on import trained_on


class OnnxJudge:
    """An ONNX graph of contract 1 with the quantiles of its training, in FP32.

    Args:
        path: the file.

    Raises:
        InputError: it is not such a graph, brings no quantiles of its own, or OpenVINO does not take it.
    """

    threshold: float | None = None
    mask: str | None = None
    batch = BATCH

    def __init__(self, path: Path) -> None:
        graph = read_graph(path)
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(
                core.read_model(graph.content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        except RuntimeError as error:
            raise InputError(f"{path}: OpenVINO does not take it: {one_line(error)}") from error
        self.name = path.name
        trained = trained_on(graph.metadata)
        self.trained = trained
        self.training_digest = graph.metadata.get("training_digest")
        self._quantiles = trained_quantiles(path, graph.metadata, len(graph.maps))
        shape = self._compiled.output(ANOMALY_MAP).get_partial_shape()
        cells = Size(shape[1].get_length(), shape[2].get_length())
        self.geometry = MapGeometry.of(graph.input_size, cells, graph.metadata)

    def judge(self, frames: Sequence[Frame]) -> Judgement:
        """See ``Judge.judge``."""
        try:
            result = self._compiled({FRAMES: np.stack(frames), QUANTILES: self._quantiles})
        except RuntimeError as error:
            raise EngineFailed(f"OpenVINO failed: {one_line(error)}") from error
        return Judgement(result[SCORE].copy(), result[ANOMALY_MAP].copy())
