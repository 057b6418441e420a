"""The seam of the runtimes, and the names of contract 1."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from engine_runtime.manifest import Manifest
from pictures.frames import Frame

CONTRACT: Final = "contract"
"""Key of the metadata: the version of contract 1 that a graph keeps; a graph without it keeps the first."""
MAPS: Final = "maps"
"""Key of the metadata, from version 2 on: the names of the maps, in the order of the quantiles' rows."""

FRAMES = "frames"
"""Input, uint8, N×H×W×3, BGR."""
QUANTILES = "quantiles"
"""Input, float32, K×2: a row for each map, in the order of ``Manifest.maps``; columns q_a, q_b."""
SCORE = "score"
"""Output, float32, N: the largest value of the anomaly map."""
ANOMALY_MAP = "anomaly_map"
"""Output, N×h×w: mean of the K normalised maps (paper §4.4)."""

Quantiles = NDArray[np.float32]


def map_output(name: str) -> str:
    """Give the output, N×h×w, that holds a map before normalisation."""
    return f"map_{name}"


def outputs_of(maps: Mapping[str, str]) -> tuple[str, ...]:
    """Give all outputs of a graph.

    Args:
        maps: name of a map → output that holds it before normalisation.
    """
    return SCORE, ANOMALY_MAP, *maps.values()


def uncalibrated(maps: Sized) -> Quantiles:
    """Give the K×2 quantiles that leave K maps as they are: q_a ↦ 0 and q_b ↦ 0.1 is then the identity."""
    return np.tile(np.array([0.0, 0.1], dtype=np.float32), (len(maps), 1))


Runner = Callable[[Mapping[str, NDArray[Any]]], object]
"""Runs a graph that need not keep contract 1, as ``engine_runtime.<runtime>.runner`` loads it to be timed."""


class Engine(Protocol):
    """A loaded engine. One lane owns it; it is not shared between threads."""

    manifest: Manifest

    @property
    def trouble(self) -> str | None:
        """What is wrong although batches may still be judged, in one line, such as a server that is away."""
        ...

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """Judge a batch.

        Args:
            frames: 1 to ``manifest.max_batch`` frames of ``manifest.input_size``, H×W×3 uint8, BGR; they
                may lie anywhere in memory and are not kept.
            quantiles: K×2 float32, see ``QUANTILES``.
            outputs: the tensors to fetch.

        Returns:
            The named outputs, row i belonging to frame i.

        Raises:
            ValueError: the frames or the quantiles are not what the manifest says.
            EngineFailed: the runtime raised; open the engine again.
        """
        ...

    def half_precision_share(self) -> float:
        """Give the share of convolutions in half precision, 0 to 1, as the runtime itself reports it."""
        ...

    def close(self) -> None:
        """Free the device's memory. The engine must not be used afterwards."""
        ...
