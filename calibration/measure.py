"""Runs an engine over images: the quantiles of its maps, then its scores."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine, Quantiles, uncalibrated
from foundation.errors import InputError
from pictures.frames import Frame
from pictures.image_file import read_image
from pictures.map_quantiles import MAP_NORMALISATION, PEAKS, good_map_quantiles, weighted, weights_in
from pictures.mask import weigh

_MOST_VALUES = 100_000_000
"""Of all maps over all images: 400 MB."""


Prepare = Callable[[Frame], Frame]
"""Makes of a picture what the engine takes; raises InputError when it cannot."""


def measure_quantiles(
    engine: Engine, files: Sequence[Path], prepare: Prepare, looks: NDArray[np.bool_] | None = None
) -> Quantiles:
    """Measure q_a and q_b of each anomaly map over good images, in the way that the model asks for.

    That is over all cells (paper §4.4), or over the largest values of the images. Of maps so large and many
    that they would not fit into memory, as many cells as do are drawn from each. Where the model gives its
    maps weights, q_b is the further from q_a the less a map counts.

    Args:
        engine: gives the maps before normalisation.
        files: images of good parts.
        prepare: what becomes of an image before the engine sees it.
        looks: h×w, the cells that count; all of them when None.

    Returns:
        K×2 float32: a row for each map, in the order of the engine's manifest; columns q_a, q_b.

    Raises:
        InputError: an image cannot be read or prepared; a map is the same everywhere.
        EngineFailed: the runtime raised.
    """
    metadata, names = engine.manifest.model_metadata, tuple(engine.manifest.maps.values())
    by_peaks = metadata.get(MAP_NORMALISATION) == PEAKS
    every = math.prod(engine.manifest.map_size)
    counted = np.arange(every) if looks is None else np.flatnonzero(looks)
    cells = len(counted)
    kept = 1 if by_peaks else min(cells, max(1, _MOST_VALUES // (len(files) * len(names))))
    maps = {name: np.empty((len(files), kept), dtype=np.float32) for name in names}
    random = np.random.default_rng(0)
    row = 0
    for frames in _batches(engine, files, prepare, "quantiles of the maps"):
        results = engine.infer(frames, uncalibrated(names), names)
        chosen = counted if kept == cells else random.choice(counted, kept, replace=False)
        for name in names:
            values = results[name].reshape(len(frames), every)
            maps[name][row : row + len(frames)] = (
                values[:, counted].max(1, keepdims=True) if by_peaks else values[:, chosen]
            )
        row += len(frames)
    quantiles = np.stack([good_map_quantiles(maps[name], metadata) for name in names])
    for name, (q_a, q_b) in zip(names, quantiles, strict=True):
        if not np.isfinite([q_a, q_b]).all() or not q_b > q_a:
            raise InputError(
                f"the {name} has the quantiles {q_a:g} and {q_b:g} over the good images; expected two finite "
                "numbers, the second larger: is this model trained?"
            )
    return weighted(quantiles, weights_in(metadata, len(names)))


Look = Callable[[Frame, float, NDArray[np.float32]], object]
"""Sees what an engine was given, its score and its anomaly map, h×w."""


def measure_scores(
    engine: Engine,
    quantiles: Quantiles,
    files: Sequence[Path],
    prepare: Prepare,
    what: str,
    *,
    weights: NDArray[np.float32] | None = None,
    look: Look | None = None,
) -> NDArray[np.float64]:
    """Score images with the engine itself.

    Args:
        engine: the engine.
        quantiles: K×2 float32.
        files: images.
        prepare: what becomes of an image before the engine sees it.
        what: the images' name on the progress bar.
        weights: h×w, of a mask, see ``MaskCells.weights``; without one the score is the engine's own.
        look: is shown each image, in the order of ``files``.

    Returns:
        Scores in the order of ``files``, float64.

    Raises:
        InputError: an image cannot be read or prepared; a score is NaN or infinite.
        EngineFailed: the runtime raised.
    """
    outputs = (SCORE,) if weights is None and look is None else (SCORE, ANOMALY_MAP)
    found = []
    for frames in _batches(engine, files, prepare, what):
        judged = engine.infer(frames, quantiles, outputs)
        given, maps = judged[SCORE], judged.get(ANOMALY_MAP)
        if weights is not None and maps is not None:
            given, maps = weigh(maps, weights)
        found.append(given)
        if look is not None and maps is not None:
            for frame, score, anomaly_map in zip(frames, given, maps, strict=True):
                look(frame, float(score), anomaly_map)
    scores = np.concatenate(found)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(f"{files[wrong[0]]}: the engine gives it the score {scores[wrong[0]]}")
    return scores.astype(np.float64)


def _batches(engine: Engine, files: Sequence[Path], prepare: Prepare, what: str) -> Iterator[list[Frame]]:
    most = engine.manifest.max_batch
    with tqdm(desc=what, total=len(files), unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(files), most):
            chosen = files[start : start + most]
            yield [_frame(file, prepare) for file in chosen]
            bar.update(len(chosen))


def _frame(file: Path, prepare: Prepare) -> Frame:
    picture = read_image(file)
    try:
        return prepare(picture)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
