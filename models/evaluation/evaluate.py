"""Judges a test set with a model and measures how well scores and maps tell defects from good parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.ranking import Ranking
from engine_runtime.engine import ANOMALY_MAP, SCORE
from engine_runtime.tiled_engine import infer_tiles, pictures_at_once
from foundation.errors import InputError
from models.datasets.data_set import GOOD, DataSet, Sample
from models.datasets.masks import regions
from models.evaluation.judge import Judge, Judgement
from models.metrics.bootstrap import Estimate, Floats, estimate, stratified_weights
from models.metrics.pixel import Areas, PixelCurves, thresholds
from pictures.digest import set_digest
from pictures.frames import Frame, Roi, Size, cut_out, fit
from pictures.heatmap import MapGeometry
from pictures.image_file import read_image
from pictures.image_folder import images_in
from pictures.locating.reference import Reference
from pictures.mask import cells_of, read_mask, weigh
from pictures.region import Seen, seen_region
from pictures.tile_merge import TileMerge
from pictures.tiles import Tiles, lay_tiles
from pictures.view import UNMOVED, Looked, View, in_the_picture, whole

PRO_LIMITS = (0.3,)
"""False positive rates up to which AU-PRO is integrated, as usual for MVTec AD."""
SPRO_LIMITS = (0.05, 0.3)
"""Those of MVTec LOCO for AU-sPRO, its headline first."""
_NOTHING = np.empty((0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Judged:
    """A test set with what a model said of it."""

    samples: list[Sample]
    sizes: list[Size]
    """Of the pictures."""
    scores: Floats
    maps: NDArray[np.float32]
    """N×h×w, at the network's resolution."""
    geometry: MapGeometry
    roi: Roi | None
    tiles: Tiles | None
    reference: Reference | None = None
    """By which parts were brought to their place, so that maps and ``roi`` are those of its picture."""
    looked: Sequence[Looked] = ()
    """Where the part lies in each picture, without what was seen."""

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Which of the N images show a defective part, N bool."""
        return np.array([sample.defect is not None for sample in self.samples])

    @property
    def strata(self) -> list[str]:
        """The type of each image's defect, or good."""
        return [sample.defect or GOOD for sample in self.samples]

    @property
    def cut(self) -> Roi | None:
        """What of the pictures is shown and compared with masks; all of them where parts are moved."""
        return self.roi if self.reference is None else None

    @property
    def not_located(self) -> list[int]:
        """Indices of the images in which no part was found; they were judged as they lie."""
        return [index for index, looked in enumerate(self.looked) if looked.lost is not None]

    def heat(self, index: int, size: Size) -> NDArray[np.float32]:
        """Spread an anomaly map over its picture, or what is shown of it: float32 of ``size``."""
        values = self.maps[index]
        if self.reference is None:
            spread = self.geometry.at(size).spread(values)
        else:
            # Where the part lies in the picture: that is where people marked the defect.
            region = self.roi or whole(self.reference.picture)
            heat = self.geometry.at(Size(region.height, region.width)).spread(values)
            placed = self.looked[index].placed or UNMOVED
            laid = in_the_picture(heat, placed, region, self.reference.picture, float(values.min()))
            resized = cv2.resize(laid, (size.width, size.height), interpolation=cv2.INTER_AREA)
            spread = resized.astype(np.float32, copy=False)
        # Interpolation must not round beyond the values it lies between.
        return np.clip(spread, values.min(), values.max())

    def seen(self, index: int) -> Size:
        """Give the size of what the model saw of a picture, in the picture's pixels."""
        return self.sizes[index] if self.cut is None else Size(self.cut.height, self.cut.width)


@dataclass(frozen=True)
class Area:
    """An area under a curve of pixels."""

    estimate: Estimate
    error: float
    """By how much the value may at most be wrong, as it was taken at finitely many thresholds."""


@dataclass(frozen=True)
class Metrics:
    """Of a group of defects against all good images."""

    images: int
    """Number of defective images."""
    image_auroc: Estimate
    f1_best: Estimate
    f1_threshold: float
    """Scores above it are rejected where F1 is best."""
    pixel_auroc: Area | None
    overlap: dict[float, Area]
    """Highest false positive rate → AU-PRO, or AU-sPRO where there are saturation thresholds."""


@dataclass(frozen=True)
class Evaluation:
    """What was found out about a model on a test set."""

    judged: Judged
    overall: Metrics
    by_defect: dict[str, Metrics]
    saturated: bool
    """Whether the overlap is sPRO."""
    unmasked: int
    """Defective images without a mask, or with an empty one, which the pixel metrics leave out."""
    trained_on: Path | None
    """Folder of good test images which the model was trained on."""


def judge_samples(
    judge: Judge, samples: list[Sample], roi: Roi | None, tiles: Tiles | None, mask: Path | None = None
) -> Judged:
    """Judge images through the product's own preprocessing.

    Args:
        judge: the model.
        samples: at least one.
        roi: region of interest in the pictures; that of the model when None.
        tiles: into which the region is cut; those of the model when None.
        mask: file that says where to look; everywhere when None.

    Raises:
        InputError: an image cannot be read, does not hold the region or is of another size than the others
            where it is cut into tiles, or the model gives it no finite score.
        EngineFailed: the runtime raised.
    """
    trained = judge.trained._replace(camera_picture=None)
    seen = seen_region([sample.image for sample in samples], roi, trained)
    roi, view = seen.cut, seen.view
    tiles = tiles or trained.tiles
    merge, at_once = None, judge.batch
    if tiles is not None:
        merge = TileMerge(lay_tiles(tiles, roi, samples[0].image), judge.geometry)
        at_once = pictures_at_once(judge.batch, merge)
    geometry = judge.geometry if merge is None else merge.geometry
    weights = _weights(judge, mask, samples[0].image, seen, geometry)
    scores, maps, sizes = [], [], []
    looked: list[Looked] = []
    with tqdm(desc="judging", total=len(samples), unit="image") as bar:
        for chosen in _batches(samples, at_once):
            frames: list[Frame] = []
            for sample in chosen:
                picture = read_image(sample.image)
                sizes.append(Size(*picture.shape[:2]))
                look = _look(sample.image, picture, view)
                looked.append(look._replace(seen=_NOTHING))
                frames.append(_frame(sample.image, look.seen, judge.geometry.frame, merge))
            result = judge.judge(frames) if merge is None else _judge_tiles(judge, frames, merge)
            if weights is not None:
                result = Judgement(*weigh(result.maps, weights))
            scores.append(result.scores)
            maps.append(result.maps)
            bar.update(len(chosen))
    found = np.concatenate(scores).astype(np.float64)
    for index in np.flatnonzero(~np.isfinite(found)):
        raise InputError(f"{samples[index].image}: {judge.name} gives it the score {found[index]}")
    return Judged(samples, sizes, found, np.concatenate(maps), geometry, roi, tiles, seen.reference, looked)


def evaluate(
    judge: Judge,
    data_set: DataSet,
    *,
    roi: Roi | None = None,
    tiles: Tiles | None = None,
    mask: Path | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure a model on the test images of a data set.

    Args:
        judge: the model.
        data_set: brings the test images and masks.
        roi: region of interest in the pictures; that of the model when None.
        tiles: into which the region is cut; those of the model when None.
        mask: file that says where to look; everywhere when None.
        draws: test sets drawn for the confidence intervals; 0 for none.
        seed: of the drawing.

    Raises:
        InputError: see ``judge_samples``, ``DataSet.test`` and ``regions``.
        EngineFailed: the runtime raised.
    """
    samples = data_set.test()
    saturations = data_set.saturations()
    judged = judge_samples(judge, samples, roi, tiles, mask)
    masked = np.array([sample.defect is None or bool(sample.masks) for sample in samples])
    defective = judged.defective
    curves = None
    if (masked & defective).any():
        curves = PixelCurves(thresholds(judged.maps[masked]))
        chosen = np.flatnonzero(masked)
        for index in tqdm(chosen, desc="comparing with masks", unit="image"):
            sample = samples[index]
            marked = regions(sample, judged.sizes[index], judged.cut, saturations) if sample.defect else []
            if marked is None:
                masked[index] = False
            else:
                curves.add(judged.heat(int(index), judged.seen(int(index))), marked)

    strata = judged.strata
    weights = np.concatenate([np.ones((1, len(samples))), stratified_weights(strata, draws, seed)])
    limits = PRO_LIMITS if saturations is None else SPRO_LIMITS
    types = sorted({stratum for stratum in strata if stratum != GOOD})
    names = np.array(strata)
    ranking = Ranking(judged.scores, defective)
    groups = {}
    for group in tqdm([None, *types], desc="drawing test sets", unit="group"):
        inside = (names == GOOD) | (names == group) if group else np.ones(len(names), dtype=np.bool_)
        drawn = weights * inside
        best = ranking.best_f1(drawn)
        groups[group] = Metrics(
            images=int(np.count_nonzero(inside & defective)),
            image_auroc=_estimate(ranking.auroc(drawn)),
            f1_best=_estimate(best.f1),
            f1_threshold=float(best.threshold[0]),
            pixel_auroc=_area(curves.auroc(drawn[:, masked])) if curves else None,
            overlap=_overlaps(curves, drawn[:, masked], limits) if curves else {},
        )
    return Evaluation(
        judged=judged,
        overall=groups[None],
        by_defect={group: groups[group] for group in types},
        saturated=saturations is not None,
        unmasked=int(np.count_nonzero(~masked)),
        trained_on=_trained_on(judge, samples),
    )


def check_test(data_set: DataSet, roi: Roi | None) -> None:
    """Read all test images and masks of a data set, as ``evaluate`` will.

    Raises:
        InputError: see ``evaluate``.
    """
    saturations = data_set.saturations()
    for sample in tqdm(data_set.test(), desc="checking the test images", unit="image"):
        picture = read_image(sample.image)
        size = Size(*picture.shape[:2])
        _look(sample.image, picture, View(roi))
        regions(sample, size, roi, saturations)


def _estimate(values: Floats) -> Estimate:
    """Take the first value as the test set's and the others as those of drawn ones."""
    return estimate(float(values[0]), values[1:])


def _area(areas: Areas) -> Area | None:
    """Give an area; None when no defect lies inside the region of interest."""
    if np.isnan(areas.values[0]):
        return None
    return Area(_estimate(areas.values), float(areas.errors[0]))


def _overlaps(curves: PixelCurves, weights: Floats, limits: Sequence[float]) -> dict[float, Area]:
    areas = {limit: _area(curves.au_pro(weights, limit)) for limit in limits}
    return {limit: area for limit, area in areas.items() if area is not None}


def _batches(samples: list[Sample], most: int) -> Iterator[list[Sample]]:
    for start in range(0, len(samples), most):
        yield samples[start : start + most]


def _weights(
    judge: Judge, file: Path | None, image: Path, seen: Seen, geometry: MapGeometry
) -> NDArray[np.float32] | None:
    """Give what a mask says of the cells of the maps, h×w; None without one."""
    mask = None if file is None else read_mask(file)
    if judge.threshold is not None and (None if mask is None else mask.digest) != judge.mask:
        wanted = "no mask" if judge.mask is None else f"the mask {judge.mask[:12]}…"
        raise InputError(
            f"--mask: found {file or 'none'}, but the calibration was made with {wanted}: give the same"
        )
    if file is None or mask is None:
        return None
    cells = cells_of(file, mask, image, seen, geometry)
    if cells.has_thresholds and judge.threshold is None:
        raise InputError(
            f"{file}: a region has a threshold of its own, which only means something beside that of a "
            "calibration: give --calibration"
        )
    return cells.weights(judge.threshold)


def _look(file: Path, picture: Frame, view: View) -> Looked:
    try:
        return view.look(picture)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _frame(file: Path, seen: Frame, size: Size, merge: TileMerge | None) -> Frame:
    try:
        return fit(seen, size) if merge is None else merge.grid.cut(seen, size)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _judge_tiles(judge: Judge, pictures: Sequence[Frame], merge: TileMerge) -> Judgement:
    def infer(tiles: Sequence[Frame], _: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return {ANOMALY_MAP: judge.judge(tiles).maps}

    found = infer_tiles(pictures, (SCORE, ANOMALY_MAP), merge, judge.batch, infer)
    return Judgement(found[SCORE], found[ANOMALY_MAP])


def _trained_on(judge: Judge, samples: list[Sample]) -> Path | None:
    for folder in sorted({sample.image.parent for sample in samples if sample.defect is None}):
        if judge.training_digest == set_digest(folder, images_in(folder)):
            return folder
    return None


def picture_seen(judged: Judged, index: int) -> Frame:
    """Read again what the model saw of a picture, in the picture's own size."""
    return cut_out(read_image(judged.samples[index].image), judged.cut)
