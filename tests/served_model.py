"""The model of a repository as MLServer runs it, in MLServer's own environment: ONNX Runtime computes.

A file ``mode`` beside it makes it behave as no server should: "slow", "shape", "nan" or "type".
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self._folder = Path(self.settings.parameters.uri)
        self._session = onnxruntime.InferenceSession(
            self._folder / "model.onnx", providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frames = NumpyCodec.decode_input(payload.inputs[0])
        names = [output.name for output in payload.outputs or []]
        mode = self._folder / "mode"
        trouble = mode.read_text() if mode.exists() else ""
        if trouble == "slow":
            time.sleep(2)
        found = dict(zip(names, self._session.run(names, {"frames": frames}), strict=True))
        if trouble == "shape":
            found = {name: array[:, :1] if array.ndim == 3 else array for name, array in found.items()}
        if trouble == "nan":
            found = {name: np.full_like(array, np.nan) for name, array in found.items()}
        if trouble == "type":
            found = {name: array.astype(np.int64) for name, array in found.items()}
        outputs = [NumpyCodec.encode_output(name, array) for name, array in found.items()]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
