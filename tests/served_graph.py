"""The model of a repository as servers run it, in their own environments: ONNX Runtime computes.

A file ``mode`` in the server's folder makes it behave as no server should: "slow", "shape", "nan" or "type".
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime


class ServedGraph:
    def __init__(self, model: Path, folder: Path) -> None:
        self._mode = folder / "mode"
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def answer(self, names: Sequence[str], frames: np.ndarray) -> dict[str, np.ndarray]:
        trouble = self._mode.read_text() if self._mode.exists() else ""
        if trouble == "slow":
            time.sleep(2)
        found = dict(zip(names, self._session.run(list(names), {"frames": frames}), strict=True))
        if trouble == "shape":
            found = {name: array[:, :1] if array.ndim == 3 else array for name, array in found.items()}
        if trouble == "nan":
            found = {name: np.full_like(array, np.nan) for name, array in found.items()}
        if trouble == "type":
            found = {name: array.astype(np.int64) for name, array in found.items()}
        return found
