"""An engine and images of good parts in, quantiles and a threshold out."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from calibration.calibration_file import Calibration
from calibration.detection import Floats
from calibration.images import ImageSet, check_disjoint, image_set, is_training_set
from calibration.measure import Prepare, measure_quantiles, measure_scores
from calibration.tail import (
    CONFIDENCE,
    FEWEST_SCORES,
    Threshold,
    fit_threshold,
    suspects,
    typical_scores_needed,
)
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import EngineFailed, InputError
from pictures.frames import Roi, Size, fit, read_image
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles
from pictures.trained_on import trained_on


@dataclass(frozen=True)
class Measured:
    """A calibration and what it was made from."""

    calibration: Calibration
    manifest: Manifest
    threshold: Threshold
    good: ImageSet
    good_scores: Floats
    suspects: list[int]
    """Indices of good images that are probably defects."""
    least_overlap: int
    """Camera pixels by which tiles must overlap so that no place lies between their maps."""
    trained_on: bool
    """The good images are those that the model was trained on."""
    defective: ImageSet | None
    defective_scores: Floats


def calibrate(
    engine_file: Path,
    good_folder: Path,
    defects_folder: Path | None,
    rate: float,
    *,
    roi: Roi | None = None,
    tiles: Tiles | None = None,
) -> Measured:
    """Measure quantiles and threshold on the engine itself.

    Quantiles and scores come from the same good images. That is no optimism worth a second set: the quantiles
    of a map scale the scores of all parts alike, so the false reject rate depends on them only through the
    relative weight of the two maps (docs/calibration.md gives the measurement).

    Args:
        engine_file: written by build-engine.
        good_folder: held-out images of good parts, at least 20 different ones.
        defects_folder: images of defective parts, to report what is caught; they do not change the threshold.
        rate: wanted false reject rate.
        roi: region of interest in the images; that of the model's training when None.
        tiles: into which the region is cut; those of the model's training when None.

    Raises:
        InputError: a file, folder or image is wrong, or there are too few good images.
        EngineFailed: the runtime raised.
    """
    good = image_set(good_folder)
    if len(good.files) < FEWEST_SCORES:
        raise InputError(
            f"{good_folder}: holds {len(good.files)} different images; a threshold needs at least "
            f"{FEWEST_SCORES}, and about {typical_scores_needed(rate)} for a false reject rate of {rate:g}"
        )
    defective = None
    if defects_folder is not None:
        defective = image_set(defects_folder)
        check_disjoint(good, defective)
    engine = open_engine(engine_file)
    try:
        manifest = engine.manifest
        trained = trained_on(manifest.model_metadata)
        roi, tiles = roi or trained.roi, tiles or trained.tiles
        prepare: Prepare = partial(fit, size=manifest.input_size, roi=roi)
        merge = None
        if tiles is not None:
            merge = TileMerge(_grid(tiles, roi, good.files[0]), manifest.geometry)
            engine = TiledEngine(engine, merge)
            prepare = partial(merge.grid.cut, size=manifest.input_size, roi=roi)
        quantiles = measure_quantiles(engine, good.files, prepare)
        good_scores = measure_scores(engine, quantiles, good.files, prepare, "good scores")
        defective_scores = np.empty(0)
        if defective is not None:
            defective_scores = measure_scores(engine, quantiles, defective.files, prepare, "defect scores")
    except EngineFailed as error:
        raise EngineFailed(f"{engine_file}: {error}") from error
    finally:
        engine.close()
    try:
        threshold = fit_threshold(good_scores, rate)
    except ValueError as error:
        raise InputError(f"{good_folder}: no threshold can be fitted: {error}") from error
    calibration = Calibration(
        format_version=1,
        model=manifest.model,
        engine_sha256=manifest.payload_sha256,
        quantiles=dict(zip(manifest.maps, quantiles.tolist(), strict=True)),
        threshold=threshold.value,
        wanted_false_reject_rate=rate,
        false_reject_rate_interval=threshold.rate_interval,
        confidence=CONFIDENCE,
        good_images=len(good.files),
        good_images_sha256=good.digest(good_folder),
        roi=roi,
        tiles=tiles,
        # The more tiles, the more places where a good part's score may be high.
        tiled_size=None if merge is None else merge.grid.region,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("inspectd"),
    )
    return Measured(
        calibration=calibration,
        manifest=manifest,
        threshold=threshold,
        good=good,
        good_scores=good_scores,
        suspects=suspects(good_scores),
        least_overlap=merge.least_overlap if merge is not None and len(merge.grid) > 1 else 0,
        trained_on=is_training_set(good, manifest.model_metadata.get("training_digest")),
        defective=defective,
        defective_scores=defective_scores,
    )


def _grid(tiles: Tiles, roi: Roi | None, first: Path) -> TileGrid:
    region = Size(*read_image(first).shape[:2]) if roi is None else Size(roi.height, roi.width)
    try:
        return TileGrid(tiles, region)
    except InputError as error:
        raise InputError(f"tiles: {error}") from error
