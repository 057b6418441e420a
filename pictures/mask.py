"""Where a model is to look: regions of the camera's picture, drawn as polygons or as a picture."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from foundation.errors import InputError
from foundation.yaml_file import read_yaml, shown
from pictures.frames import LARGEST, Roi, Size
from pictures.heatmap import MapGeometry
from pictures.image_file import read_image, read_unchanged
from pictures.region import Seen

A_MASK: Final = (
    "a mask: a YAML file with regions, or a picture that is white where to look and black elsewhere"
)
_YAML: Final = (".yaml", ".yml")
_MOST_WEIGHT: Final = 1000

Side = Annotated[int, Field(ge=1, le=LARGEST)]
Coordinate = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Levels = NDArray[np.float32]


class Region(BaseModel):
    """A polygon in which to look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    polygon: tuple[tuple[Coordinate, Coordinate], ...] = Field(
        min_length=3, max_length=10_000, description="corners x, y in pixels of the picture"
    )
    weight: float = Field(
        default=1.0,
        ge=0,
        le=_MOST_WEIGHT,
        allow_inf_nan=False,
        description="by which the map is multiplied: 2 judges twice as strictly, 0 does not look",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="a part is rejected above it here, whatever the calibration's threshold is",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "Region":
        if self.threshold is not None and self.weight != 1:
            raise ValueError(f"the region {self.name} has a weight and a threshold; expected one of both")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    picture: dict[Literal["width", "height"], Side]
    regions: tuple[Region, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _size_is_whole(self) -> "_File":
        if len(self.picture) != 2:
            raise ValueError("picture: expected {width: …, height: …} in pixels")
        return self


class Mask:
    """Where to look in a camera's picture, or with ``locate`` in the reference's.

    Attributes:
        picture: height and width of that picture.
        weights: H×W float32: by which a map is multiplied; 0 where nothing is looked at.
        thresholds: H×W float32: of regions with a threshold of their own; 0 elsewhere.
        names: of the regions.
    """

    def __init__(self, weights: Levels, thresholds: Levels, names: tuple[str, ...] = ()) -> None:
        self.picture = Size(*weights.shape)
        self.weights, self.thresholds, self.names = weights, thresholds, names

    @classmethod
    def of_regions(cls, picture: Size, regions: tuple[Region, ...]) -> "Mask":
        """Draw regions; where they overlap, the later one holds."""
        weights, thresholds = np.zeros((2, *picture), dtype=np.float32)
        for region in regions:
            # To a sixteenth of a pixel.
            corners = (np.array(region.polygon) * 16).round().clip(-(2**30), 2**30).astype(np.int32)
            for levels, value in ((weights, region.weight), (thresholds, region.threshold or 0.0)):
                cv2.fillPoly(levels, [corners], value, shift=4)
        return cls(weights, thresholds, tuple(region.name for region in regions))

    @property
    def digest(self) -> str:
        """SHA-256 of what it says of each pixel, however it was drawn."""
        whole = hashlib.sha256(json.dumps(list(self.picture)).encode())
        whole.update(self.weights.tobytes())
        whole.update(self.thresholds.tobytes())
        return whole.hexdigest()

    def __str__(self) -> str:
        return f"the mask {self.digest[:12]}…"


class MaskCells:
    """What a mask says of each cell of an anomaly map."""

    def __init__(self, mask: Mask, roi: Roi | None, geometry: MapGeometry) -> None:
        """Lay a mask under a map: a cell has the weight of the pixel in its middle.

        Args:
            mask: the mask.
            roi: the region of its picture that the model sees; all of it when None.
            geometry: of the map over that region.

        Raises:
            InputError: the region does not lie inside the mask's picture, or nothing of it is looked at.
        """
        x, y, width, height = roi or Roi(0, 0, mask.picture.width, mask.picture.height)
        if x + width > mask.picture.width or y + height > mask.picture.height:
            raise InputError(
                f"was drawn on a picture of {mask.picture.width}×{mask.picture.height} pixels, in which the "
                f"region {width}×{height}+{x}+{y} does not lie"
            )
        over = geometry.at(Size(height, width))
        (top, left), (down, right) = over.margin, over.stride
        rows = (top + (np.arange(over.map.height) + 0.5) * down).astype(int).clip(0, height - 1) + y
        columns = (left + (np.arange(over.map.width) + 0.5) * right).astype(int).clip(0, width - 1) + x
        self._weights = mask.weights[np.ix_(rows, columns)]
        self._thresholds = mask.thresholds[np.ix_(rows, columns)]
        if not (self._weights > 0).any():
            raise InputError("leaves nothing to look at in what the model sees")
        self.looks: NDArray[np.bool_] = self._weights > 0
        """Where it looks, h×w."""

    @property
    def has_thresholds(self) -> bool:
        """Whether a region has a threshold of its own."""
        return bool((self._thresholds > 0).any())

    def weights(self, threshold: float | None) -> Levels:
        """Give the weights of the cells, h×w.

        Args:
            threshold: of the calibration, to which those of regions are brought; None leaves such regions
                out, as it is not known yet.
        """
        own = self._thresholds > 0
        weights: Levels = self._weights.copy()
        weights[own] = 0 if threshold is None else threshold / self._thresholds[own]
        return weights


def cells_of(file: Path, mask: Mask, image: Path, shown: Seen, geometry: MapGeometry) -> MaskCells:
    """Lay a mask under the maps of a model.

    Args:
        file: of the mask, for what is said about mistakes.
        mask: the mask.
        image: one of the images that are judged.
        shown: what they show of the camera's picture.
        geometry: of the maps over what the model sees.

    Raises:
        InputError: the mask was drawn on a picture of another size, or leaves nothing to look at.
    """
    # Images that say nothing of their camera are its whole pictures, or what is cut out was cut before.
    picture = shown.camera_picture or (
        Size(*read_image(image).shape[:2]) if shown.roi is None or shown.cut is not None else None
    )
    if picture is not None and picture != mask.picture:
        raise InputError(
            f"{file}: was drawn on a picture of {mask.picture.width}×{mask.picture.height} pixels, but "
            f"{image} shows one of {picture.width}×{picture.height}"
        )
    try:
        return MaskCells(mask, shown.roi, geometry)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def weigh(maps: Levels, weights: Levels) -> tuple[Levels, Levels]:
    """Apply a mask to anomaly maps before their maximum.

    Args:
        maps: N×h×w float32.
        weights: h×w float32, see ``MaskCells.weights``; not 0 everywhere.

    Returns:
        Scores, N; and the maps, N×h×w, in which cells that are not looked at have the lowest value of those
        that are.
    """
    looks = weights > 0
    weighted = maps * weights
    scores: Levels = np.max(weighted, axis=(1, 2), initial=-np.inf, where=looks)
    lowest = np.min(weighted, axis=(1, 2), initial=np.inf, where=looks)
    shown_maps: Levels = np.where(looks, weighted, lowest[:, None, None])
    return scores, shown_maps


def read_mask(path: Path) -> Mask:
    """Read a mask.

    A picture says where to look by its brightness: black is not looked at, white is, grey with less weight.

    Raises:
        InputError: the file is missing or is no mask, or it leaves nothing to look at.
    """
    if path.suffix.lower() in _YAML:
        return Mask.of_regions(*_read_file(path))
    mask = _read_picture(path)
    _check(path, mask)
    return mask


def read_regions(path: Path, picture: Size) -> tuple[Region, ...]:
    """Read the regions of a mask that was drawn on pictures of a size.

    Raises:
        InputError: the file is missing or is no such mask.
    """
    size, regions = _read_file(path)
    if size != picture:
        raise InputError(
            f"{path}: was drawn on a picture of {size.width}×{size.height} pixels, but this one has "
            f"{picture.width}×{picture.height}"
        )
    return regions


def check_regions(path: Path, picture: Size, regions: tuple[Region, ...]) -> None:
    """Refuse regions that ``read_mask`` would refuse once they are written.

    Raises:
        InputError: they do not lie in the picture, or leave nothing to look at.
    """
    if not regions:
        raise InputError(f"{path}: has no region; expected one where to look")
    for region in regions:
        corners = np.array(region.polygon)
        if (corners.max(axis=0) < 0).any() or (corners.min(axis=0) >= (picture.width, picture.height)).any():
            raise InputError(
                f"{path}: the region {region.name} does not lie inside the picture of "
                f"{picture.width}×{picture.height} pixels"
            )
    _check(path, Mask.of_regions(picture, regions))


def _check(path: Path, mask: Mask) -> None:
    if not (mask.weights > 0).any():
        raise InputError(f"{path}: leaves nothing to look at; expected {A_MASK}")
    if not (mask.weights[mask.thresholds == 0] > 0).any():
        raise InputError(
            f"{path}: each region has a threshold of its own; expected one without, on which calibrate "
            "measures the threshold"
        )


def _read_file(path: Path) -> tuple[Size, tuple[Region, ...]]:
    file = read_yaml(path, A_MASK)
    try:
        content = _File.model_validate_json(file.json)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        found = shown(first["input"])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{path}: {f'{key}: ' if key else ''}{said}{f', found {found}' if found and key else ''}"
        ) from error
    picture = Size(content.picture["height"], content.picture["width"])
    check_regions(path, picture, content.regions)
    return picture, content.regions


def _read_picture(path: Path) -> Mask:
    levels = read_unchanged(path)
    if levels.dtype != np.uint8 or (levels.ndim == 3 and (levels[..., :3] != levels[..., :1]).any()):
        raise InputError(f"{path}: has colours, or more than 8 bits; expected {A_MASK}")
    grey = levels if levels.ndim == 2 else levels[..., 0]
    weights: Levels = grey.astype(np.float32) / np.float32(255)
    return Mask(weights, np.zeros_like(weights))
