"""The seam behind which every runtime stands, and the names of contract 1."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine_runtime.manifest import Manifest
from pictures.frames import Frame

FRAMES = "frames"
"""Input, uint8, N×H×W×3, BGR."""
QUANTILES = "quantiles"
"""Input, float32, 2×2: rows student–teacher, student–autoencoder; columns q_a, q_b."""
SCORE = "score"
"""Output, float32, N: the largest value of the anomaly map."""
ANOMALY_MAP = "anomaly_map"
"""Output, N×h×w: mean of both normalised maps (paper §4.4)."""
LOCAL_MAP = "local_map"
"""Output, N×h×w: student–teacher map before normalisation."""
GLOBAL_MAP = "global_map"
"""Output, N×h×w: student–autoencoder map before normalisation."""

OUTPUTS = (SCORE, ANOMALY_MAP, LOCAL_MAP, GLOBAL_MAP)

Quantiles = NDArray[np.float32]

UNCALIBRATED: Quantiles = np.array([[0.0, 0.1], [0.0, 0.1]], dtype=np.float32)
"""Leaves both maps as they are: q_a ↦ 0 and q_b ↦ 0.1 is then the identity."""

Runner = Callable[[Mapping[str, NDArray[Any]]], object]
"""Runs a graph that need not keep contract 1, as ``engine_runtime.<runtime>.runner`` loads it to be timed."""


class Engine(Protocol):
    """A loaded engine. One lane owns it; it is not shared between threads."""

    manifest: Manifest

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """Judge a batch.

        Args:
            frames: 1 to ``manifest.max_batch`` frames of ``manifest.input_size``, H×W×3 uint8, BGR; they
                may lie anywhere in memory and are not kept.
            quantiles: 2×2 float32, see ``QUANTILES``.
            outputs: the tensors to fetch.

        Returns:
            The named outputs, row i belonging to frame i.

        Raises:
            EngineFailed: the runtime raised; open the engine anew.
        """
        ...

    def half_precision_share(self) -> float:
        """Give the share of convolutions in half precision, 0 to 1, as the runtime itself reports it."""
        ...

    def close(self) -> None:
        """Free the device's memory. The engine must not be used afterwards."""
        ...
