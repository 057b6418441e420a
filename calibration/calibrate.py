"""An engine and images of good parts in, quantiles and a threshold out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.calibration_file import Calibration, read_calibration
from calibration.compare import Compared
from calibration.detection import Floats
from calibration.drift_baseline import Recorder
from calibration.highest import Highest, Picture
from calibration.images import ImageSet, check_disjoint, defective_set, good_set, is_training_set
from calibration.measure import measure_quantiles, measure_scores
from calibration.near_copies import groups, thumbnail
from calibration.reachable import check_reachable
from calibration.suspects import suspects
from calibration.tail import (
    CONFIDENCE,
    FEWEST_SCORES,
    Threshold,
    Truncation,
    fit_threshold,
    scores_needed,
)
from engine_runtime.engine import Engine
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from foundation.errors import EngineFailed, InputError
from pictures.digest import pixel_digest
from pictures.frames import Frame, Roi, Size, fit
from pictures.mask import MaskCells, cells_of, read_mask
from pictures.region import seen_region
from pictures.tile_merge import TileMerge
from pictures.tiles import Tiles, lay_tiles
from pictures.trained_on import trained_on, trained_pixels
from pictures.view import View

if TYPE_CHECKING:
    from calibration.from_line import FromLine


@dataclass(frozen=True)
class Measured:
    """A calibration and what it was made from."""

    calibration: Calibration
    manifest: Manifest
    threshold: Threshold
    good: ImageSet
    good_scores: Floats
    groups: list[int]
    """Of each good image: near-copies, such as consecutive frames, have the same number."""
    suspects: list[int]
    """Indices of good images that are probably defects, highest score first."""
    threshold_without: float | None
    """The threshold without the suspects; None where there are none, or too few other images."""
    least_overlap: int
    """Camera pixels by which tiles must overlap so that no place lies between their maps."""
    trained_on: list[int]
    """Indices of good images that the model was trained on."""
    defective: ImageSet | None
    defective_scores: Floats
    not_located: int
    """Number of defective images in which no part was found; they were judged as they lie."""
    part_scores: Floats
    """The highest score of each good part; what the tail was fitted on."""
    highest: list[Picture]
    """The good images with the highest scores, highest first."""
    compared: Compared | None
    """An earlier calibration, where one was given."""
    from_line: "FromLine | None"
    """What a running line judged by, where the images were collected from one."""

    @property
    def truncation(self) -> Truncation | None:
        """What is known of good parts that are missing because a line rejected them."""
        return _truncation(self.from_line, self.part_scores)


def calibrate(
    engine_file: Path,
    good_folder: Path,
    defects_folder: Path | None,
    rate: float,
    *,
    roi: Roi | None = None,
    tiles: Tiles | None = None,
    mask: Path | None = None,
    compare_with: Path | None = None,
    from_line: "FromLine | None" = None,
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
        mask: file that says where to look; everywhere when None. Regions with a threshold of their own do not
            count for the one that is measured.
        compare_with: an earlier calibration; the images are judged by it, too, if it is of this engine.
        from_line: what a running line judged by, whose parts the images show; its quantiles are kept.

    Raises:
        InputError: a file, folder or image is wrong, or there are too few good images.
        EngineFailed: the runtime raised.
    """
    look_at = None if mask is None else read_mask(mask)
    good = good_set(good_folder)
    if len(good.files) < FEWEST_SCORES:
        raise InputError(
            f"{good_folder}: holds {len(good.files)} different images; a threshold needs at least "
            f"{FEWEST_SCORES}, and about {scores_needed(rate)} for a false reject rate of {rate:g}"
        )
    defective = None
    if defects_folder is not None:
        defective = defective_set(defects_folder)
        check_disjoint(good, defective)
    old = None if compare_with is None else read_calibration(compare_with)
    engine = open_engine(engine_file)
    try:
        manifest = engine.manifest
        trained = trained_on(manifest.model_metadata)
        images = good.files if defective is None else [*good.files, *defective.files]
        shown = seen_region(images, roi, trained)
        tiles, view, merge = tiles or trained.tiles, shown.view, None
        if tiles is not None:
            merge = TileMerge(lay_tiles(tiles, shown.cut, good.files[0]), manifest.geometry)
            engine = TiledEngine(engine, merge)
        recorder = Recorder(merge)
        seen = _Seen(good.files, view, merge, manifest.input_size, shown.cut, recorder=recorder)
        cells = None
        if mask is not None and look_at is not None:
            geometry = manifest.geometry if merge is None else merge.geometry
            cells = cells_of(mask, look_at, good.files[0], shown, geometry)
        quantiles = measure_quantiles(engine, good.files, seen, None if cells is None else cells.looks)
        if from_line is not None:
            quantiles = from_line.quantiles
        parts = groups(seen.thumbnails)
        score = partial(measure_scores, engine, quantiles, good.files, seen.prepare)
        good_scores, highest, threshold = _of_good(
            good_folder, score, parts, rate, (mask, cells), recorder=recorder, from_line=from_line
        )
        weights = None if cells is None else cells.weights(threshold.value)
        defective_scores = np.empty(0)
        if defective is not None:
            defective_scores = measure_scores(
                engine, quantiles, defective.files, seen.prepare_defective, "defect scores", weights=weights
            )
        not_located, compared = seen.lost, None
        if old is not None and compare_with is not None:
            same_mask = old.mask == (None if look_at is None else look_at.digest)
            before = _judged_by(old, engine, (good, defective), seen, cells) if same_mask else (None, None)
            compared = Compared(compare_with, old, *before)
    except EngineFailed as error:
        raise EngineFailed(f"{engine_file}: {error}") from error
    finally:
        engine.close()
    check_reachable(engine_file, threshold.value, [good_scores, defective_scores], quantiles, manifest)
    found = suspects(good_scores)
    calibration = Calibration(
        format_version=1,
        model=manifest.model,
        engine_sha256=manifest.payload_sha256,
        quantiles=dict(zip(manifest.maps, quantiles.tolist(), strict=True))
        if from_line is None
        else from_line.calibration.quantiles,
        threshold=threshold.value,
        wanted_false_reject_rate=rate,
        false_reject_rate_interval=threshold.rate_interval,
        confidence=CONFIDENCE,
        good_images=len(good.files),
        good_images_sha256=good.digest(good_folder),
        roi=shown.roi,
        mask=None if look_at is None else look_at.digest,
        locate=None if shown.reference is None else shown.reference.digest,
        camera_picture=shown.camera_picture,
        tiles=tiles,
        # The more tiles, the more places where a good part's score may be high.
        tiled_size=None if merge is None else merge.grid.region,
        drift=recorder.baseline(),
        score_tolerance=threshold.tolerance if threshold.tolerance > 0 else None,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tool_version=version("inspectd"),
    )
    return Measured(
        calibration=calibration,
        manifest=manifest,
        threshold=threshold,
        good=good,
        good_scores=good_scores,
        groups=parts,
        suspects=found,
        threshold_without=_threshold_without(found, good_scores, parts, rate, from_line),
        least_overlap=merge.least_overlap if merge is not None and len(merge.grid) > 1 else 0,
        trained_on=_trained_on(good, seen.digests, manifest.model_metadata),
        defective=defective,
        not_located=not_located,
        defective_scores=defective_scores,
        part_scores=_of_parts(good_scores, parts),
        highest=highest.pictures(
            manifest.geometry if merge is None else merge.geometry, merge, threshold.value
        ),
        compared=compared,
        from_line=from_line,
    )


def _of_good(
    folder: Path,
    score: Callable[..., Floats],
    parts: list[int],
    rate: float,
    looked_at: tuple[Path | None, MaskCells | None],
    *,
    recorder: Recorder,
    from_line: "FromLine | None",
) -> tuple[Floats, Highest, Threshold]:
    """Score the good images, and fit the threshold to them.

    Regions of a mask that have a threshold of their own do not count for it; then they are scored by it.

    Raises:
        InputError: no threshold can be fitted, or not one that such regions can be brought to.
    """
    highest = Highest()
    mask, cells = looked_at

    def look(frame: Frame, found: float, anomaly_map: NDArray[np.float32]) -> None:
        highest.look(frame, found, anomaly_map)
        recorder.measure(frame, found, anomaly_map)

    weights = None if cells is None else cells.weights(None)
    scores = score("good scores", weights=weights, look=look)
    try:
        part_scores = _of_parts(scores, parts)
        threshold = fit_threshold(part_scores, rate, _truncation(from_line, part_scores))
    except ValueError as error:
        raise InputError(f"{folder}: no threshold can be fitted: {error}") from error
    if cells is None or not cells.has_thresholds:
        return scores, highest, threshold
    if threshold.value <= 0:
        raise InputError(
            f"{mask}: a region has a threshold of its own, but that of the others is "
            f"{threshold.value:.4g}; expected a positive one: give that region a weight instead"
        )
    highest = Highest()
    recorder.measure_again()
    weights = cells.weights(threshold.value)
    return score("scores with own thresholds", weights=weights, look=look), highest, threshold


def _truncation(from_line: "FromLine | None", scores: Floats) -> Truncation | None:
    return None if from_line is None else from_line.truncation(float(scores.max()))


def _judged_by(
    old: Calibration,
    engine: Engine,
    images: tuple[ImageSet, ImageSet | None],
    seen: "_Seen",
    cells: MaskCells | None,
) -> tuple[Floats | None, Floats | None]:
    """Score the images as an earlier calibration of the same engine would; None where it is of another."""
    if old.engine_sha256 != engine.manifest.payload_sha256 or set(old.quantiles) != set(engine.manifest.maps):
        return None, None
    quantiles = np.array([old.quantiles[name] for name in engine.manifest.maps], dtype=np.float32)
    score = partial(
        measure_scores, engine, quantiles, weights=None if cells is None else cells.weights(old.threshold)
    )
    good, defective = images
    scores = score(good.files, seen.prepare, "good scores, as before")
    if defective is None:
        return scores, None
    return scores, score(defective.files, seen.prepare_defective, "defect scores, as before")


class _Seen:
    """Prepares pictures, and notes of each good one what tells it from others."""

    def __init__(
        self,
        good: Sequence[Path],
        view: View,
        merge: TileMerge | None,
        size: Size,
        cut: Roi | None,
        *,
        recorder: Recorder,
    ) -> None:
        self._good, self._recorder = good, recorder
        self._view, self._merge, self._size, self._cut = view, merge, size, cut
        self.digests: list[int] = []
        self.thumbnails: list[NDArray[np.float32]] = []
        self.lost = 0

    def __call__(self, picture: Frame) -> Frame:
        prepared = self.prepare(picture)
        self.digests.append(pixel_digest(picture))
        self.thumbnails.append(thumbnail(picture, self._cut))
        self._recorder.see(prepared)
        return prepared

    def prepare(self, picture: Frame) -> Frame:
        """Make what the engine takes; the part has to be there."""
        return self._frame(self._view.see(picture))

    def prepare_defective(self, picture: Frame) -> Frame:
        """Make what the engine takes; a part that is not found is judged as it lies.

        Raises:
            InputError: a good image has the same pixels.
        """
        digest = pixel_digest(picture)
        if digest in self.digests:
            same = self._good[self.digests.index(digest)]
            raise InputError(f"has the pixels of the good image {same}; an image is good or defective")
        looked = self._view.look(picture)
        self.lost += looked.lost is not None
        return self._frame(looked.seen)

    def _frame(self, seen: Frame) -> Frame:
        return fit(seen, self._size) if self._merge is None else self._merge.grid.cut(seen, self._size)


def _of_parts(scores: Floats, parts: list[int]) -> Floats:
    """Give the highest score of each part; all scores where these are too few parts for a threshold."""
    highest = np.full(max(parts) + 1, -np.inf)
    np.maximum.at(highest, parts, scores)
    return highest if len(highest) >= FEWEST_SCORES else scores


def _threshold_without(
    found: list[int], scores: Floats, parts: list[int], rate: float, from_line: "FromLine | None"
) -> float | None:
    if not found:
        return None
    kept = [index for index in range(len(scores)) if index not in set(found)]
    numbers = {part: number for number, part in enumerate(dict.fromkeys(parts[index] for index in kept))}
    others = _of_parts(scores[kept], [numbers[parts[index]] for index in kept])
    try:
        return fit_threshold(others, rate, _truncation(from_line, others)).value
    except ValueError:
        return None


def _trained_on(good: ImageSet, digests: list[int], metadata: Mapping[str, str]) -> list[int]:
    """Find the images that the model was trained on; models of old versions know their whole set alone."""
    if is_training_set(good, metadata.get("training_digest")):
        return list(range(len(digests)))
    known = trained_pixels(metadata)
    return [index for index, digest in enumerate(digests) if digest in known]
