"""Whether any part can score above a threshold: with a map that is cut off at a limit, perhaps none can."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.detection import Floats
from engine_runtime.engine import Quantiles
from engine_runtime.manifest import Manifest
from foundation.errors import InputError
from pictures.heatmap import HIGHEST_VALUE

_EQUAL = 3
"""So many equal scores above all others are a limit."""


def check_reachable(
    engine: Path, threshold: float, scores: Sequence[Floats], quantiles: Quantiles, manifest: Manifest
) -> None:
    """Refuse a threshold that no part can exceed, so that every defect would pass.

    Args:
        engine: the file, to name it.
        threshold: of the score.
        scores: of all images that were looked at.
        quantiles: K×2, with which they were scored.
        manifest: of the engine.

    Raises:
        InputError: the model's map is limited, and the score at its limit is not above the threshold; or the
            highest scores are all equal, and not above it.
    """
    advice = "export the model without it (anomalib: the map before its post-processing) and build it again"
    limit = _highest_value(manifest)
    if limit is not None:
        q_a, q_b = (quantiles[:, column].astype(np.float64) for column in (0, 1))
        most = float(np.mean(0.1 * (limit - q_a) / (q_b - q_a)))
        if threshold >= most:
            raise InputError(
                f"{engine}: no part can exceed the threshold {threshold:.4g}: the model cuts its map off at "
                f"{limit:g}, so that the highest possible score is {most:.4g}; {advice}"
            )
    found = np.concatenate(scores)
    top = float(found.max())
    equal = int(np.count_nonzero(found == top))
    if top <= threshold and equal >= _EQUAL:
        raise InputError(
            f"{engine}: no part reaches the threshold {threshold:.4g}: the {equal} highest scores are all "
            f"{top:.4g}, where the model seems to cut them off; {advice}"
        )


def _highest_value(manifest: Manifest) -> float | None:
    try:
        return float(manifest.model_metadata[HIGHEST_VALUE])
    except (KeyError, ValueError):
        return None
