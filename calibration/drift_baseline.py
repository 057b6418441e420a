"""How good parts looked when a calibration was made, and how much they varied: what drift is held against."""

import base64
import binascii
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pictures.appearance import CELLS, REGISTERED, SPOTS, STATISTICS, Appearance, Plane
from pictures.frames import Frame, Size
from pictures.tile_merge import TileMerge

SCORE: Final = len(STATISTICS)
"""Index of the score in the values of a part."""
REGIONS: Final = 4
"""Along each side of an anomaly map, whose mean is taken in each."""
FIRST_REGION: Final = SCORE + 1
FIRST_CELL: Final = FIRST_REGION + REGIONS**2
FIRST_SPOT: Final = FIRST_CELL + CELLS**2
VALUES: Final = FIRST_SPOT + SPOTS**2
"""Of each part: appearance, score, regions of the map, cells and spots of the picture."""
FEWEST_IMAGES: Final = 20

_LEAST: Final = (0.01, 0.02, 0.03, 0.03, 0.01, 0.01)
"""Deviations of the statistics from brightness to red: less would be precision that no line needs."""
_LEAST_SHIFT: Final = 0.002
"""Likewise of the place, as a share of the picture's side."""
_LEAST_CELL: Final = 0.03
_FEWEST_DEPENDENT, _MOST_DEPENDENT = 4.0, 40.0
_UNKNOWN: Final = 1e9
"""A deviation with which nothing is noticed: of spots that a baseline of an earlier version does not have."""

Values = NDArray[np.float32]


class DriftBaseline(BaseModel):
    """What a good part's values were, in the order of ``VALUES``; cells and spots packed: there are many."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(ge=FEWEST_IMAGES)
    size: Size = Field(description="height and width of what the engine sees")
    mean: tuple[float, ...] = Field(
        min_length=FIRST_CELL, max_length=FIRST_CELL, description="appearance, score and regions of the map"
    )
    deviation: tuple[float, ...] = Field(min_length=FIRST_CELL, max_length=FIRST_CELL)
    dependence: tuple[float, ...] = Field(
        min_length=FIRST_CELL,
        max_length=FIRST_CELL,
        description="integrated autocorrelation time, in parts, of images in the order of their names",
    )
    cells: str = Field(description="likewise of the picture's cells: three rows of float16, in base64")
    spots: str | None = Field(None, description="likewise of its spots; null in files of earlier versions")
    mean_picture: str = Field(description="grey levels, PNG in base64")

    @field_validator("cells")
    @classmethod
    def _are_cells(cls, text: str) -> str:
        _unpacked(text, CELLS**2)
        return text

    @field_validator("spots")
    @classmethod
    def _are_spots(cls, text: str | None) -> str | None:
        if text is not None:
            _unpacked(text, SPOTS**2)
        return text

    @field_validator("mean_picture")
    @classmethod
    def _is_picture(cls, text: str) -> str:
        _decoded(text)
        return text

    def picture(self) -> Plane:
        """Give the mean picture, ``REGISTERED`` × ``REGISTERED`` float32."""
        return _decoded(self.mean_picture)

    def table(self) -> NDArray[np.float64]:
        """Give mean, deviation and dependence of all values: 3×VALUES."""
        rows = np.array([self.mean, self.deviation, self.dependence])
        spots = np.repeat([[0.0], [_UNKNOWN], [_FEWEST_DEPENDENT]], SPOTS**2, axis=1)
        if self.spots is not None:
            spots = _unpacked(self.spots, SPOTS**2)
        table: NDArray[np.float64] = np.concatenate([rows, _unpacked(self.cells, CELLS**2), spots], axis=1)
        return table


def _packed(table: NDArray[np.float64]) -> str:
    return base64.b64encode(table.astype(np.float16).tobytes()).decode()


def _unpacked(text: str, count: int) -> NDArray[np.float64]:
    """Give what ``_packed`` packed: mean, deviation and dependence, 3×count."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("expected base64") from error
    if len(content) != 3 * count * np.dtype(np.float16).itemsize:
        raise ValueError(f"expected three values of each of {count}")
    table = np.frombuffer(content, np.float16).reshape(3, count).astype(np.float64)
    if not np.isfinite(table).all():
        raise ValueError("expected finite numbers")
    return table


def _decoded(text: str) -> Plane:
    try:
        content = base64.b64decode(text, validate=True)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (binascii.Error, ValueError, cv2.error) as error:
        raise ValueError("expected a PNG in base64") from error
    if picture is None or picture.shape != (REGISTERED, REGISTERED):
        raise ValueError(f"expected a PNG of {REGISTERED}×{REGISTERED} pixels")
    return picture.astype(np.float32)


class Recorder:
    """Notes of good parts what a baseline is made from. A first look gives the mean picture, a second all."""

    def __init__(self, merge: TileMerge | None = None) -> None:
        """Begin.

        Args:
            merge: of the tiles, where a frame is several; None where it is one picture.
        """
        self._merge = merge
        self._sum = np.zeros((REGISTERED, REGISTERED))
        self._plain = Appearance()
        self._appearance: Appearance | None = None
        self._count = 0
        self._rows: list[Values] = []
        self._size = Size(0, 0)

    def see(self, frame: Frame) -> None:
        """See a picture for the first time: H×W×3 or tiles×H×W×3 uint8, BGR."""
        picture = self._whole(frame)
        self._sum += self._plain.small(picture)
        self._count += 1
        self._size = Size(*picture.shape[:2])

    def measure(self, frame: Frame, score: float, anomaly_map: Plane) -> None:
        """See a picture again, with its score and its h×w anomaly map."""
        picture = self._whole(frame)
        if self._appearance is None:
            self._appearance = Appearance((self._sum / self._count).astype(np.float32))
        values = np.empty(VALUES, np.float32)
        values_of(self._appearance, picture, score, anomaly_map, values)
        self._rows.append(values)

    def measure_again(self) -> None:
        """Forget the scores: all pictures come once more, with others."""
        self._rows.clear()

    def _whole(self, frame: Frame) -> Frame:
        return frame if self._merge is None else self._merge.grid.assemble(frame)

    def baseline(self) -> DriftBaseline | None:
        """Give the baseline; None of too few pictures."""
        if len(self._rows) < FEWEST_IMAGES:
            return None
        _, encoded = cv2.imencode(".png", (self._sum / self._count).round().astype(np.uint8))
        rows = np.stack(self._rows).astype(np.float64)
        table = np.stack([rows.mean(axis=0), _deviations(rows, self._size), dependence(rows)])
        few = [tuple(float(f"{value:.6g}") for value in row) for row in table[:, :FIRST_CELL]]
        return DriftBaseline(
            images=len(rows),
            size=self._size,
            mean=few[0],
            deviation=few[1],
            dependence=few[2],
            cells=_packed(table[:, FIRST_CELL:FIRST_SPOT]),
            spots=_packed(table[:, FIRST_SPOT:]),
            mean_picture=base64.b64encode(encoded.tobytes()).decode(),
        )


def values_of(appearance: Appearance, picture: Frame, score: float, anomaly_map: Plane, out: Values) -> None:
    """Measure a part.

    Args:
        appearance: measures its picture.
        picture: H×W×3 uint8, BGR, as the engine saw it.
        score: of it.
        anomaly_map: h×w float32.
        out: VALUES float32, where they go.
    """
    appearance.measure(picture, out[:SCORE], out[FIRST_CELL:FIRST_SPOT], out[FIRST_SPOT:])
    out[SCORE] = score
    regions = cv2.resize(anomaly_map, (REGIONS, REGIONS), interpolation=cv2.INTER_AREA)
    out[FIRST_REGION:FIRST_CELL] = regions.reshape(-1)


def _deviations(rows: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows.std(axis=0, ddof=1)
    least = np.full(VALUES, _LEAST_CELL)
    least[: len(_LEAST)] = _LEAST
    least[len(_LEAST) : SCORE] = _LEAST_SHIFT * np.array([size.width, size.height])
    # Scores and maps have no unit: a tenth of the usual one is taken.
    usual = np.median(found[FIRST_REGION:FIRST_CELL])
    least[SCORE] = 1e-9
    least[FIRST_REGION:FIRST_CELL] = max(0.3 * usual, 1e-9)
    return np.asarray(np.maximum(found, least))


def dependence(rows: NDArray[np.float64], least: float = _FEWEST_DEPENDENT) -> NDArray[np.float64]:
    """Estimate how many successive parts say as much as one independent part would, at most 40.

    It is the integrated autocorrelation time, by the initial positive sequence (Geyer, "Practical Markov
    chain Monte Carlo", 1992). Images that are not in the order of time look independent.

    Args:
        rows: n×k values, in the order of time.
        least: it is no less.
    """
    count = len(rows)
    centred = rows - rows.mean(axis=0)
    spectrum = np.fft.rfft(centred, 2 * count, axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:count]
    correlation = covariance / np.maximum(covariance[0], 1e-30)
    pairs = correlation[0 : count // 2 * 2 : 2] + correlation[1 : count // 2 * 2 : 2]
    positive = np.cumprod(pairs > 0, axis=0)
    found: NDArray[np.float64] = 2 * (pairs * positive).sum(axis=0) - 1
    return np.asarray(np.clip(found, least, _MOST_DEPENDENT))
