"""Runs an engine over images: the quantiles of its maps, then its scores."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine_runtime.engine import GLOBAL_MAP, LOCAL_MAP, SCORE, UNCALIBRATED, Engine, Quantiles
from engine_runtime.errors import InputError
from engine_runtime.frames import Frame, Roi, Size, fit, read_image

Q_A, Q_B = 0.9, 0.995
"""Paper §4.4."""


def measure_quantiles(engine: Engine, files: Sequence[Path], roi: Roi | None) -> Quantiles:
    """Measure q_a and q_b of both anomaly maps over all pixels of good images (paper §4.4).

    Args:
        engine: gives the maps before normalisation.
        files: images of good parts.
        roi: region of interest in the images.

    Returns:
        2×2 float32: rows student–teacher, student–autoencoder; columns q_a, q_b.

    Raises:
        InputError: an image cannot be read or does not hold the region; a map is the same everywhere.
        EngineFailed: the runtime raised.
    """
    names = (LOCAL_MAP, GLOBAL_MAP)
    maps = {name: np.empty((len(files), *engine.manifest.map_size), dtype=np.float32) for name in names}
    row = 0
    for frames in _batches(engine, files, roi, "quantiles of the maps"):
        results = engine.infer(frames, UNCALIBRATED, names)
        for name in names:
            maps[name][row : row + len(frames)] = results[name]
        row += len(frames)
    quantiles = np.array([np.quantile(maps[name], (Q_A, Q_B)) for name in names], dtype=np.float32)
    for name, (q_a, q_b) in zip(names, quantiles, strict=True):
        if not np.isfinite([q_a, q_b]).all() or not q_b > q_a:
            raise InputError(
                f"the {name} has the quantiles {q_a:g} and {q_b:g} over the good images; expected two finite "
                "numbers, the second larger: is this model trained?"
            )
    return quantiles


def measure_scores(
    engine: Engine, quantiles: Quantiles, files: Sequence[Path], roi: Roi | None, what: str
) -> NDArray[np.float64]:
    """Score images with the engine itself.

    Args:
        engine: the engine.
        quantiles: 2×2 float32.
        files: images.
        roi: region of interest in the images.
        what: the images' name on the progress bar.

    Returns:
        Scores in the order of ``files``, float64.

    Raises:
        InputError: an image cannot be read or does not hold the region; a score is NaN or infinite.
        EngineFailed: the runtime raised.
    """
    batches = _batches(engine, files, roi, what)
    scores = np.concatenate([engine.infer(frames, quantiles, (SCORE,))[SCORE] for frames in batches])
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(f"{files[wrong[0]]}: the engine gives it the score {scores[wrong[0]]}")
    return scores.astype(np.float64)


def _batches(engine: Engine, files: Sequence[Path], roi: Roi | None, what: str) -> Iterator[list[Frame]]:
    size, most = engine.manifest.input_size, engine.manifest.max_batch
    with tqdm(desc=what, total=len(files), unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(files), most):
            chosen = files[start : start + most]
            yield [_frame(file, size, roi) for file in chosen]
            bar.update(len(chosen))


def _frame(file: Path, size: Size, roi: Roi | None) -> Frame:
    picture = read_image(file)
    try:
        return fit(picture, size, roi)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
