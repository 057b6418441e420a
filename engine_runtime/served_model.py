"""What stands in an engine file instead of a graph where a server judges: which model it has to run."""

import json
from collections.abc import Collection

import numpy as np

from engine_runtime.engine import Quantiles
from foundation.errors import EngineRefused


def payload_of(model_sha256: str, maps: Collection[str], quantiles: Quantiles) -> bytes:
    """Describe the model of a server.

    Args:
        model_sha256: of the ONNX file in the server's repository.
        maps: their names.
        quantiles: K×2, that are inside.
    """
    inside = {name: [float(a), float(b)] for name, (a, b) in zip(maps, quantiles, strict=True)}
    return json.dumps({"model_sha256": model_sha256, "quantiles": inside}).encode()


def quantiles_in(payload: bytes, maps: Collection[str]) -> Quantiles:
    """Give the quantiles, K×2, that a server's model has inside.

    Raises:
        EngineRefused: it is no such payload.
    """
    try:
        inside = json.loads(payload)["quantiles"]
        return np.array([inside[name] for name in maps], np.float32).reshape(len(maps), 2)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineRefused("its payload does not describe the model of a server; build it again") from error
