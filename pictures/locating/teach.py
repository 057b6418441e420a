"""Learns from good pictures where a part's edges lie, which of them are always there, and how it may turn."""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from pictures.frames import Frame, Roi, Size
from pictures.locating.locator import Floats, Locator, NotLocated, Place, edges_between, in_grey
from pictures.locating.reference import (
    FEWEST_POINTS,
    MOST_POINTS,
    Allowed,
    Reference,
    lies_inside,
    parse_reference,
)

FEWEST_PICTURES: Final = 3
DEFAULT_TURN: Final = 15.0
DEFAULT_RESIDUAL: Final = 0.6

_TRIED: Final = 5
"""Pictures of which the one becomes the reference in which most others find themselves."""
_LEAST_CONTRAST: Final = 3.0
"""Grey levels for each pixel: less is noise of the camera."""
_STABLE: Final = 0.5
"""Mean agreement over the pictures from which on a point belongs to the part."""
_LOST: Final = 0.1
"""Of the pictures may show no part: more, and something else is wrong."""
_SAME: Final = 0.85
"""Agreement with itself at another turn, as a share of that at its own, from which a part is symmetric."""


class Taught(NamedTuple):
    """What was learned, and how the pictures fit it."""

    reference: Reference
    chosen: int
    """Index of the picture that is the reference."""
    places: list[Place | NotLocated]
    """Of the part in each picture."""


class _Wishes(NamedTuple):
    part: Roi | None
    search: Roi | None
    allowed: Allowed


def teach(
    pictures: Sequence[Frame],
    *,
    part: Roi | None = None,
    search: Roi | None = None,
    shift: float | None = None,
    turn: float = DEFAULT_TURN,
    scale: float = 0.0,
    residual: float = DEFAULT_RESIDUAL,
    progress: Callable[[Sequence[Frame]], Sequence[Frame]] = lambda pictures: pictures,
) -> Taught:
    """Learn a part from pictures of good ones.

    Args:
        pictures: at least three, H×W×3 uint8, BGR, all of one size.
        part: the box around the part in the first picture, which then is the reference; found by itself when
            None, as that in which the pictures agree.
        search: what of a picture is looked at; all of it when None.
        shift: how far the part's middle may lie from the reference, in pixels; a quarter of the picture's
            shorter side when None.
        turn: how far it may be turned, in degrees.
        scale: by what share its size may change.
        residual: the largest share of its edges that may be missing.
        progress: shows how far it is.

    Raises:
        InputError: there are too few pictures, they differ in size, a region does not lie inside them, they
            show no part, or where it lies cannot be told from its edges.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise InputError(f"found {len(pictures)} pictures, expected at least {FEWEST_PICTURES} of good parts")
    size = Size(*pictures[0].shape[:2])
    for name, region in (("part", part), ("search region", search)):
        if region is not None and not lies_inside(region, size):
            raise InputError(
                f"the {name} {region} does not lie inside the picture of {size.width}×{size.height} pixels"
            )
    if part is not None and search is not None and not _contains(search, part):
        raise InputError(f"the part {part} does not lie inside the search region {search}")
    if shift is None:
        shift = min(size) / 4
    wishes = _Wishes(part, search, Allowed(shift, turn, scale, 0.9))
    chosen = 0
    if part is None:
        indices = np.unique(np.linspace(0, len(pictures) - 1, _TRIED).round().astype(int)).tolist()
        chosen = min(indices, key=lambda index: _strangeness(pictures, index, indices, wishes))
    found = _begun(pictures[chosen], wishes)
    if found is None:
        raise InputError("no part was found: there are no edges in the picture")
    found = _kept(found, pictures, progress)
    found, symmetry = _symmetry(found, pictures[chosen])
    _refuse_sliding(found)
    allowed = found.allowed._replace(residual=residual)
    if symmetry == 0:
        allowed = allowed._replace(turn=0.0)
    elif symmetry is not None:
        allowed = allowed._replace(turn=min(turn, symmetry / 2))
    final = Reference(size, found.part, search, allowed, symmetry, found.points)
    reference = parse_reference(final.text)  # with the digits that a file holds
    locator = Locator(reference)
    places = [locator.locate(picture) for picture in progress(pictures)]
    lost = [index for index, place in enumerate(places) if isinstance(place, NotLocated)]
    if len(lost) > max(1, _LOST * len(pictures)):
        raise NotShared(lost, len(pictures), places[lost[0]])
    return Taught(reference, chosen, places)


class NotShared(InputError):
    """Too many of the pictures do not show the part that the others show.

    Attributes:
        lost: indices of those pictures.
    """

    def __init__(self, lost: list[int], count: int, first: Place | NotLocated) -> None:
        reason = first.reason if isinstance(first, NotLocated) else str(first)
        super().__init__(
            f"{len(lost)} of {count} pictures do not show the part that the others show ({reason}): take "
            "them out, allow more with --shift or --turn, or say with --part where it lies in the first one"
        )
        self.lost = lost


def _contains(outer: Roi, inner: Roi) -> bool:
    return lies_inside(
        Roi(inner.x - outer.x, inner.y - outer.y, inner.width, inner.height), Size(outer.height, outer.width)
    )


def _strangeness(pictures: Sequence[Frame], index: int, others: Sequence[int], wishes: _Wishes) -> float:
    """Say how badly some pictures fit to one of them."""
    reference = _begun(pictures[index], wishes)
    if reference is None:
        return math.inf
    locator = Locator(reference)
    places = [locator.locate(pictures[other]) for other in others if other != index]
    return float(np.mean([1 if isinstance(place, NotLocated) else place.residual for place in places]))


def _begun(picture: Frame, wishes: _Wishes) -> Reference | None:
    """Take all the clear edges of a picture for the part's; None where there are too few."""
    size = Size(*picture.shape[:2])
    region = wishes.part or wishes.search or Roi(0, 0, size.width, size.height)
    # Twice as many as in the end: those that are not always there go.
    points = _edge_points(picture, region, MOST_POINTS if wishes.part else 2 * MOST_POINTS)
    if len(points) < FEWEST_POINTS:
        return None
    part = wishes.part or _box(points, size)
    return Reference(size, part, wishes.search, wishes.allowed, None, points)


def _box(points: Floats, size: Size) -> Roi:
    left, top = np.floor(points[:, :2].min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(points[:, :2].max(axis=0)).astype(int).tolist()
    left, top = max(0, left), max(0, top)
    return Roi(left, top, min(size.width - left, right - left + 1), min(size.height - top, bottom - top + 1))


def _edge_points(picture: Frame, region: Roi, most: int) -> Floats:
    """Find the clearest points of edges in a region, spread over it: N×5, see ``Reference.points``."""
    grey = in_grey(picture)
    reduction = max(1.0, max(region.width, region.height) / 128)
    cut = grey[region.y : region.y + region.height, region.x : region.x + region.width]
    small = cv2.resize(
        cut,
        (max(3, round(region.width / reduction)), max(3, round(region.height / reduction))),
        interpolation=cv2.INTER_AREA,
    )
    smooth = cv2.GaussianBlur(small, (3, 3), 0)
    x: Floats = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32).astype(np.float32)
    y: Floats = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32).astype(np.float32)
    strength: Floats = np.hypot(x, y)
    ridge = _ridge(x, y, strength)
    strength[~ridge] = 0
    strength[[0, -1]] = strength[:, [0, -1]] = 0
    clear = strength > max(
        _LEAST_CONTRAST, 0.2 * float(np.quantile(strength[ridge], 0.95)) if ridge.any() else 0
    )
    rows, columns = np.nonzero(clear)
    order = strength[rows, columns].argsort()[::-1]
    kept = _spread(rows[order], columns[order], most)
    rows, columns = rows[order][kept], columns[order][kept]
    scale = np.array([region.width / small.shape[1], region.height / small.shape[0]])
    at = (np.stack([columns, rows], axis=1) + 0.5) * scale - 0.5 + (region.x, region.y)
    length = strength[rows, columns]
    directions = np.stack([x[rows, columns], y[rows, columns]], axis=1) / length[:, None]
    points: Floats = np.concatenate([at, directions, length[:, None]], axis=1).astype(np.float32)
    return edges_between(grey, points, float(scale.mean()))


def _ridge(x: Floats, y: Floats, strength: Floats) -> NDArray[np.bool_]:
    """Say where the gradient is larger than before and after, in its direction."""
    unit = np.maximum(strength, 1e-6)
    rows, columns = np.mgrid[0 : x.shape[0], 0 : x.shape[1]].astype(np.float32)
    before, after = (
        cv2.remap(strength, columns + sign * x / unit, rows + sign * y / unit, cv2.INTER_LINEAR)
        for sign in (-1, 1)
    )
    ridge: NDArray[np.bool_] = (strength > before) & (strength >= after)
    return ridge


def _spread(rows: NDArray[np.intp], columns: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Choose points, the first ones before others, so that no two are near: as near as need be."""
    kept = np.arange(len(rows))
    for apart in range(1, 64):
        taken: set[tuple[int, int]] = set()
        chosen = []
        for index, (row, column) in enumerate(zip(rows // apart, columns // apart, strict=True)):
            if (row, column) not in taken:
                taken.add((row, column))
                chosen.append(index)
        kept = np.array(chosen, dtype=np.intp)
        if len(kept) <= most:
            break
    return kept[:most]


def _kept(
    reference: Reference, pictures: Sequence[Frame], progress: Callable[[Sequence[Frame]], Sequence[Frame]]
) -> Reference:
    """Keep those points that the pictures share."""
    locator = Locator(reference)
    sums = np.zeros(len(reference.points))
    located = 0
    lost = []
    nearest: Place | NotLocated | None = None
    for index, picture in enumerate(progress(pictures)):
        place = locator.locate(picture)
        if isinstance(place, NotLocated):
            lost.append(index)
            nearest = place
            continue
        sums += locator.agreement_at(picture, place)
        located += 1
    if nearest is not None and located < max(2, len(pictures) / 2):
        raise NotShared(lost, len(pictures), nearest)
    mean = sums / located
    stable = np.flatnonzero(mean >= _STABLE)
    if len(stable) < FEWEST_POINTS:
        raise InputError(
            "no part was found: the pictures have no edges in common; give pictures of one part, or say with "
            "--part where it lies in the first of them"
        )
    points = reference.points[stable]
    if len(points) > MOST_POINTS:
        order = mean[stable].argsort()[::-1]
        columns, rows = (points[order, :2] / 2).astype(int).T
        points = points[order][_spread(rows, columns, MOST_POINTS)]
    part = reference.part if len(stable) == len(reference.points) else _box(points, reference.picture)
    return Reference(reference.picture, part, reference.search, reference.allowed, None, points)


def _symmetry(reference: Reference, picture: Frame) -> tuple[Reference, float | None]:
    """Find out at which other turns the part looks the same.

    Returns:
        The reference; and the turn after which it looks the same, 0 for any turn, None for none.
    """
    if reference.allowed.turn == 0:
        return reference, None
    step = max(2.0, math.degrees(3 / reference.radius))
    turns = np.arange(-180, 180, step)
    agreements = np.array([_self_agreement(reference, picture, float(turn)) for turn in turns])
    own = _self_agreement(reference, picture, 0.0)
    same = agreements >= _SAME * own
    apart = np.abs(turns)
    if same[apart < max(20.0, 3 * step)].all():
        return reference, 0.0
    # What is still near its own turn is no other one.
    first_other = apart[~same].min()
    others = apart[same & (apart > first_other)]
    return reference, None if not others.size else float(_nearest_peak(turns, agreements, others.min(), step))


def _nearest_peak(
    turns: NDArray[np.float64], agreements: NDArray[np.float64], about: float, step: float
) -> float:
    near = np.abs(np.abs(turns) - about) <= 4 * step
    return float(np.abs(turns[near][agreements[near].argmax()]))


def _self_agreement(reference: Reference, picture: Frame, turn: float) -> float:
    """Say how well the part fits to its own picture at another turn, a little shifted if need be."""
    free = Reference(
        reference.picture,
        reference.part,
        reference.search,
        Allowed(0.1 * reference.radius, 0.0, 0.0, 1.0),
        None,
        _turned(reference, turn),
    )
    place = Locator(free).locate(picture)
    return 0.0 if isinstance(place, NotLocated) else 1 - place.residual


def _turned(reference: Reference, turn: float) -> Floats:
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    matrix = np.array([[cos, sin], [-sin, cos]], dtype=np.float32)
    middle = np.array(reference.middle, dtype=np.float32)
    points = reference.points.copy()
    points[:, :2] = (points[:, :2] - middle) @ matrix + middle
    points[:, 2:4] = points[:, 2:4] @ matrix
    return points


def _refuse_sliding(reference: Reference) -> None:
    """Refuse a part whose edges all run in one direction: nobody can say where along it the part lies."""
    directions = reference.points[:, 2:4].astype(np.float64)
    values, vectors = np.linalg.eigh(directions.T @ directions / len(directions))
    if values[0] < 0.02:
        along = "across" if abs(vectors[0, 0]) > abs(vectors[1, 0]) else "up or down"
        raise InputError(
            f"the part's edges all run in one direction, so that its place {along} is undecided: give "
            "pictures that show an end or a corner of it"
        )
