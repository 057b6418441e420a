"""The calibration file: what ``calibrate`` measured on one engine and the daemon judges with."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from calibration.drift_baseline import DriftBaseline
from engine_runtime.engine import Quantiles
from engine_runtime.manifest import VERSION_1_MAPS
from foundation.errors import InputError
from foundation.files import write_whole
from foundation.yaml_file import described, read_yaml, shown, yaml_text
from pictures.frames import Roi, Size
from pictures.tiles import Tiles

FORMAT_VERSION = 1
A_CALIBRATION = "a file written by calibrate"
_COMMENT = b"# Written by calibrate. A part whose score is above the threshold is rejected.\n"
_SINCE_LATER = ("changed", "score_tolerance", "locate", "mask", "drift")
"""Keys that version 1 has not had from the beginning."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ThresholdChange(BaseModel):
    """Who chose another threshold than ``calibrate`` did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: str = Field(description="name of the person")
    reason: str = Field(description="in their words")
    at: str = Field(description="ISO 8601, UTC")
    before: Finite = Field(description="the threshold until then")


class Calibration(BaseModel):
    """Quantiles and threshold of one engine on one product."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    model: str = Field(description="name of the engine's model")
    engine_sha256: str = Field(description="the payload_sha256 of the engine's manifest")
    quantiles: dict[str, tuple[Finite, Finite]] = Field(
        min_length=1, description="map → q_a, q_b; in files made before maps had names, two rows"
    )
    threshold: Finite = Field(description="a part with a higher score is rejected")
    wanted_false_reject_rate: Share
    false_reject_rate_interval: tuple[Share, Share] = Field(
        description="holds the false reject rate at the threshold with probability ``confidence``"
    )
    confidence: Share
    good_images: int = Field(gt=0)
    good_images_sha256: str = Field(description="over the names and contents of the good images")
    roi: Roi | None = Field(description="x, y, width, height in the camera's pixels")
    camera_picture: Size | None = Field(
        default=None,
        description="height and width of the camera's whole picture, where the good images say so; no roi"
        " then means all of it",
    )
    locate: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the reference by which each part was brought to its place",
    )
    mask: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the mask that says where to look",
    )
    tiles: Tiles | None = Field(default=None, description="into which a picture is cut; None for one frame")
    tiled_size: Size | None = Field(
        default=None, description="height and width that the tiles were laid over"
    )
    score_tolerance: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="by so much all scores could move before the false reject rate left its interval; by no"
        " more may a golden sample's score move",
    )
    drift: DriftBaseline | None = Field(
        default=None, description="how the good parts looked, against which drift is told"
    )
    made_at: str = Field(description="ISO 8601, UTC")
    tool_version: str
    changed: ThresholdChange | None = Field(
        default=None,
        description="the last change of the threshold by a person; the interval then is what the line's own"
        " parts showed",
    )

    @field_validator("quantiles", mode="before")
    @classmethod
    def _name_the_rows(cls, quantiles: Any) -> Any:
        if isinstance(quantiles, list | tuple) and len(quantiles) == len(VERSION_1_MAPS):
            quantiles = dict(zip(VERSION_1_MAPS, quantiles, strict=True))
        if isinstance(quantiles, dict):  # strict validation takes no list of Python's for a tuple
            return {name: tuple(row) if isinstance(row, list) else row for name, row in quantiles.items()}
        return quantiles

    @model_validator(mode="after")
    def _check_quantiles(self) -> "Calibration":
        for name, (q_a, q_b) in zip(self.quantiles, self.quantiles_array(), strict=True):
            if not (np.isfinite([q_a, q_b]).all() and q_b > q_a):
                raise ValueError(
                    f"quantiles of the map {name} are {q_a:g} and {q_b:g}; q_b must be larger than q_a"
                )
        return self

    def quantiles_array(self) -> Quantiles:
        """Give the quantiles as the K×2 float32 input of an engine."""
        with np.errstate(over="ignore"):
            return np.array(list(self.quantiles.values()), dtype=np.float32)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as YAML, whole or not at all.

    Raises:
        InputError: the folder of ``path`` cannot be written.
    """
    write_whole(path, calibration_text(calibration))


def calibration_text(calibration: Calibration) -> bytes:
    """Give the content of a calibration's file."""
    content = calibration.model_dump(mode="json")
    for key in _SINCE_LATER:
        if content[key] is None:
            del content[key]  # older versions read it, too
    return _COMMENT + yaml_text(content).encode()


def load_calibration(
    path: Path, engine_sha256: str, maps: Collection[str], text: bytes | None = None
) -> Calibration:
    """Read a calibration that was made for a given engine.

    Args:
        path: a file written by ``calibrate``.
        engine_sha256: the ``payload_sha256`` of the engine's manifest.
        maps: the maps of the engine's manifest; the quantiles are brought into their order.
        text: what ``read_text`` gave; read here when None.

    Raises:
        InputError: the file is missing, is not a calibration, or was made for another engine.
    """
    calibration = read_calibration(path, text)
    if calibration.engine_sha256 != engine_sha256:
        raise InputError(
            f"{path}: was made for another engine: {calibration.engine_sha256[:12]}… (model "
            f"{calibration.model!r:.60}); the engine here is {engine_sha256[:12]}…: run calibrate on it"
        )
    if calibration.quantiles.keys() != set(maps):
        found, expected = (f"{', '.join(names):.80}" for names in (calibration.quantiles, maps))
        raise InputError(f"{path}: quantiles: found {found}; expected {expected}, the engine's maps")
    return calibration.model_copy(update={"quantiles": {name: calibration.quantiles[name] for name in maps}})


def read_calibration(path: Path, text: bytes | None = None) -> Calibration:
    """Read a calibration, whichever engine it was made for.

    Raises:
        InputError: the file is missing, or is not a calibration.
    """
    file = read_yaml(path, A_CALIBRATION, text)
    version = file.content.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version is {described(version)}; this inspectd reads {FORMAT_VERSION}"
        )
    try:
        return Calibration.model_validate_json(file.json, strict=True)
    except ValidationError as error:
        raise InputError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    found = shown(first["input"])
    return f"{key}: {message}{f', found {found}' if found else ''}" if key else message
