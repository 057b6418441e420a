"""The model as Triton's Python backend runs it: what the server has put together is one batch."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["PYTHONPATH"])  # the backend's interpreter does not read it

import numpy as np
import triton_python_backend_utils as backend
from served_graph import ServedGraph


class TritonPythonModel:
    def initialize(self, arguments: dict[str, str]) -> None:
        model = Path(arguments["model_repository"]) / arguments["model_version"] / "model.onnx"
        self._graph = ServedGraph(model, model.parents[3])

    def execute(self, requests: list[Any]) -> list[Any]:
        frames = [backend.get_input_tensor_by_name(request, "frames").as_numpy() for request in requests]
        names = sorted({name for request in requests for name in request.requested_output_names()})
        found = self._graph.answer(names, np.concatenate(frames))
        answers = []
        first = 0
        for request, part in zip(requests, frames, strict=True):
            rows = slice(first, first + len(part))
            first = rows.stop
            tensors = [backend.Tensor(name, found[name][rows]) for name in request.requested_output_names()]
            answers.append(backend.InferenceResponse(output_tensors=tensors))
        return answers
