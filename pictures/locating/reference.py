"""What was taught of a part: where its edges lie, and how far it may be from there."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pictures.frames import LARGEST, Frame, Roi, Size

FORMAT_VERSION: Final = 1
MOST_POINTS: Final = 250
FEWEST_POINTS: Final = 30
MOST_TURN: Final = 180.0
MOST_SCALE: Final = 0.3

_DIGITS = 2
_ALL = frozenset(
    {
        "format_version",
        "picture",
        "part",
        "search",
        "shift",
        "turn",
        "scale",
        "residual",
        "symmetry",
        "points",
    }
)


class Allowed(NamedTuple):
    """How far a part may lie from where it was taught."""

    shift: float
    """Pixels of its middle, to each side."""
    turn: float
    """Degrees to each side, at most 180; 0 where its turn is not looked for."""
    scale: float
    """As a share of its size, up and down; 0 where its size is always the same."""
    residual: float
    """The largest share of its edges that may be missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A taught part. Pixels are those of the camera's whole picture, x to the right and y down.

    Attributes:
        picture: height and width of the pictures it was taught on.
        part: the box around the part; the part turns about its middle.
        search: what of a picture is looked at; all of it when None.
        allowed: how far the part may lie from there.
        symmetry: degrees after which the part looks the same again; 0 where it does at every turn, which
            then is not looked for; None where it looks the same at no other turn.
        points: N×5 float32, one point of an edge in each row: x, y, the direction in which it grows brighter
            (a unit vector), and by how many grey levels for each pixel of the size in which it is compared.
    """

    picture: Size
    part: Roi
    search: Roi | None
    allowed: Allowed
    symmetry: float | None
    points: NDArray[np.float32]

    @property
    def middle(self) -> tuple[float, float]:
        """The point (x, y) about which the part turns."""
        return self.part.x + self.part.width / 2 - 0.5, self.part.y + self.part.height / 2 - 0.5

    @property
    def radius(self) -> float:
        """The largest distance of a point from the middle, in pixels."""
        return float(np.hypot(*(self.points[:, :2] - self.middle).T).max())

    @property
    def text(self) -> str:
        """All of it as JSON, as ``parse_reference`` reads it; a model's metadata hold it."""
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "picture": list(self.picture),
            "part": list(self.part),
            "search": None if self.search is None else list(self.search),
            **self.allowed._asdict(),
            "symmetry": self.symmetry,
            "points": [[round(float(value), _DIGITS) for value in row] for row in self.points],
        }
        return json.dumps(content, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of ``text``: by it training, calibration and the daemon know that they use the same."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return f"the reference {self.digest[:12]}…"

    def fault_of(self, picture: Frame) -> str | None:
        """Say why a picture cannot be one of the camera on which the part was taught; None if it can."""
        height, width = picture.shape[:2]
        if (height, width) == self.picture:
            return None
        return (
            f"the picture has {width}×{height} pixels, but the reference of locate was taught on pictures of "
            f"{self.picture.width}×{self.picture.height}"
        )


def parse_reference(text: str) -> Reference:
    """Read what ``Reference.text`` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version") if isinstance(content, dict) else None
        raise ValueError(f"found format_version {found!r:.20}, expected {FORMAT_VERSION}")
    if content.keys() != _ALL:
        raise ValueError(
            f"found the keys {', '.join(sorted(content)):.100}, expected {', '.join(sorted(_ALL))}"
        )
    picture, part = Size(*_pixels(content["picture"], 2)), Roi(*_pixels(content["part"], 4))
    search = None if content["search"] is None else Roi(*_pixels(content["search"], 4))
    for name, region in (("part", part), ("search", search)):
        if region is not None and not lies_inside(region, picture):
            raise ValueError(f"{name} {region} does not lie inside {picture.width}×{picture.height} pixels")
    symmetry = None if content["symmetry"] is None else _number(content, "symmetry", 0, 360)
    allowed = Allowed(
        _number(content, "shift", 0, LARGEST),
        _number(content, "turn", 0, MOST_TURN),
        _number(content, "scale", 0, MOST_SCALE),
        _number(content, "residual", 0, 1),
    )
    return Reference(picture, part, search, allowed, symmetry, _points(content["points"]))


def lies_inside(region: Roi, picture: Size) -> bool:
    """Say whether a region has pixels, and all of them in a picture."""
    has_pixels = region.x >= 0 and region.y >= 0 and region.width > 0 and region.height > 0
    right, bottom = region.x + region.width, region.y + region.height
    return has_pixels and right <= picture.width and bottom <= picture.height


def _pixels(found: object, count: int) -> list[int]:
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"found {found!r:.40}, expected {count} numbers of pixels")
    if not all(type(side) is int and 0 <= side <= LARGEST for side in found):
        raise ValueError(f"found {found!r:.40}, expected whole pixels")
    return found


def _number(content: dict[str, Any], key: str, low: float, high: float) -> float:
    found = content[key]
    if type(found) not in {int, float} or not low <= found <= high:
        raise ValueError(f"{key}: found {found!r:.40}, expected {low:g} to {high:g}")
    return float(found)


def _points(found: object) -> NDArray[np.float32]:
    try:
        points = np.array(found, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError("points: expected rows of 5 numbers") from error
    if points.ndim != 2 or points.shape[1] != 5 or not FEWEST_POINTS <= len(points) <= MOST_POINTS:
        raise ValueError(
            f"points: found the shape {points.shape}, expected {FEWEST_POINTS} to {MOST_POINTS} rows of 5"
        )
    if not np.isfinite(points).all() or np.abs(points).max() > LARGEST:
        raise ValueError("points: expected finite numbers")
    return points
