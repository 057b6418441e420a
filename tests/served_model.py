"""The model as MLServer runs it."""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served_graph import ServedGraph


class OnnxModel(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        folder = Path(self.settings.parameters.uri)
        self._graph = ServedGraph(folder / "model.onnx", folder)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frames = NumpyCodec.decode_input(payload.inputs[0])
        found = self._graph.answer([output.name for output in payload.outputs or []], frames)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in found.items()]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
