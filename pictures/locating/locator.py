"""Finds a taught part in a picture: where it lies, how it is turned, and how well it fits.

Coarse: the directions of the part's edges are compared with those of the picture, reduced so that the part
is some 32 pixels long, at all places at once by a Fourier transform, for each turn and size that is allowed.
Only directions count, so that light and contrast do not matter (after C. Steger, "Occlusion, clutter, and
illumination invariant object recognition", 2002). Fine: at each point of an edge the picture is sampled along
the direction across that edge. Where it rises most, to a fraction of a pixel, is where the edge is now. The
place, turn and size that bring all points there are found by least squares; what lies far off has no weight.
"""

import math
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures.frames import Frame, Roi
from pictures.locating.reference import Allowed, Reference

Floats = NDArray[np.float32]
Grey = NDArray[np.uint8]
Away = NDArray[np.floating]

_COARSE_PART: Final = 32
"""Pixels of the part's longest side where it is looked for at all turns."""
_MIDDLE: Final = 4
"""Times finer than that is the picture in which the place is refined first."""
_LARGEST_FINE: Final = 1600
"""Pixels of the longest side of the picture in which it is refined last."""
_CANDIDATES: Final = 4
_GOOD_ENOUGH: Final = 0.35
"""A candidate with a smaller residual needs no others beside it."""
_FAINT: Final = 0.15
"""Of the taught contrast: an edge has to be stronger than that to have a direction of its own."""
_LEAST_RISE: Final = 0.2
"""Of the taught contrast: less is no edge when its place is measured."""


class Place(NamedTuple):
    """Where a part lies, against where it was taught."""

    dx: float
    """Of its middle, in pixels of the camera's picture."""
    dy: float
    turn: float
    """Degrees; positive is clockwise as seen on a screen."""
    scale: float
    """1 is the taught size."""
    residual: float
    """Share of its edges that are not where they should be: 0 for the reference itself, 1 for none."""

    def picture_from_reference(self, reference: Reference) -> NDArray[np.float64]:
        """Give the 2×3 matrix that takes a point (x, y) of the reference picture to the camera's."""
        x, y = reference.middle
        cos, sin = (
            math.cos(math.radians(self.turn)) * self.scale,
            math.sin(math.radians(self.turn)) * self.scale,
        )
        return np.array(
            [
                [cos, -sin, x + self.dx - cos * x + sin * y],
                [sin, cos, y + self.dy - sin * x - cos * y],
            ]
        )

    def __str__(self) -> str:
        return (
            f"shift {self.dx:+.2f},{self.dy:+.2f} turn {self.turn:+.2f}° scale {self.scale:.4f} "
            f"residual {self.residual:.2f}"
        )


class NotLocated(NamedTuple):
    """A part was not found."""

    reason: str
    nearest: Place | None
    """What looked most like it."""


class Locator:
    """Finds one taught part in pictures of its camera. Not shared between threads."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        left, top, width, height = search = reference.search or Roi(0, 0, *reference.picture[::-1])
        self._search = search
        middle_x, middle_y = reference.middle
        self._middle = np.array([middle_x - left, middle_y - top])
        self._points = reference.points[:, :2] - np.array([middle_x, middle_y], dtype=np.float32)
        self._normals = np.ascontiguousarray(reference.points[:, 2:4])
        self._contrasts = reference.points[:, 4]
        longest = max(np.ptp(self._points, axis=0).max(), 1)
        coarse = max(1.0, longest / _COARSE_PART)
        self._fine = _Level(max(width, height) / _LARGEST_FINE, width, height)
        between = self._fine.reduction * max(1, round(coarse / _MIDDLE / self._fine.reduction))
        self._between = _Level(between, width, height)
        self._coarse = _Level(between * max(1, round(coarse / between)), width, height)
        self._coarse_search = _CoarseSearch(self._coarse, self._middle, self._points, reference)

    def locate(self, picture: Frame) -> Place | NotLocated:
        """Find the part.

        Args:
            picture: H×W×3 uint8, BGR, the camera's whole picture.

        Returns:
            Where it lies; or why it was not found.
        """
        return self.locate_all(picture, 1)[0]

    def locate_all(self, picture: Frame, parts: int) -> list[Place | NotLocated]:
        """Find several parts of the same kind, as many as are expected.

        Args:
            picture: H×W×3 uint8, BGR, the camera's whole picture.
            parts: how many there should be.

        Returns:
            As many as expected: places first, from left to right in rows, then what is missing.
        """
        wrong = self.reference.fault_of(picture)
        if wrong is not None:
            return [NotLocated(wrong, None)] * parts
        x, y, width, height = self._search
        seen = picture[y : y + height, x : x + width]
        fine = self._fine.of(in_grey(seen))
        between = self._between.of(fine, self._fine)
        candidates = self._coarse_search.candidates(
            self._coarse.of(between, self._between), parts * _CANDIDATES
        )
        found: list[Place] = []
        nearest: Place | None = None
        for candidate in candidates:
            if self._is_taken(candidate, found):
                continue
            place = self._refined(candidate, between, fine)
            if nearest is None or place.residual < nearest.residual:
                nearest = place
            if self._fault(place) is None and not self._is_taken(place, found):
                found.append(place)
                if len(found) >= parts and place.residual < _GOOD_ENOUGH:
                    break
        found = sorted(found, key=lambda place: place.residual)[:parts]
        within = self.reference.allowed.shift
        no_other = f"there is no other part within {within:g} pixels of the taught place"
        missing = NotLocated(self._fault(nearest) or no_other, nearest)
        return [*self._in_rows(found), *[missing] * (parts - len(found))]

    def _refined(self, candidate: Place, between: Grey, fine: Grey) -> Place:
        allowed = self.reference.allowed
        pose = _Pose.of(candidate, self._middle)
        if self._between.reduction > self._fine.reduction:
            pose = self._fitted(between, self._between, pose, half=6, rounds=4)
        pose = self._fitted(fine, self._fine, pose, half=4, rounds=3)
        dx, dy = pose.shift - self._middle
        turn = math.degrees(pose.turn) if allowed.turn else 0.0
        if allowed.turn >= 180:
            turn = (turn + 180) % 360 - 180
        return Place(float(dx), float(dy), turn, pose.scale, self._residual(between, pose))

    def _fitted(self, picture: Grey, level: "_Level", pose: "_Pose", *, half: int, rounds: int) -> "_Pose":
        """Bring the edges to where the picture rises most, within ``half`` of its pixels."""
        allowed = self.reference.allowed
        offsets = np.arange(-half - 1, half + 2, dtype=np.float32)
        least = _LEAST_RISE * self._contrasts * (level.reduction / self._between.reduction)
        for _ in range(rounds):
            rotated, normals = pose.turned(self._points), pose.turned_only(self._normals)
            at = level.at(rotated + pose.shift.astype(np.float32))
            profile = cv2.remap(
                picture,
                at[:, :1] + normals[:, :1] * offsets,
                at[:, 1:] + normals[:, 1:] * offsets,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            ).astype(np.float32)
            away, rise, is_inside = _steepest(profile)
            is_edge = is_inside & (rise > least)
            if np.count_nonzero(is_edge) < 8:
                return pose
            spread = max(0.3, 1.5 * float(np.median(np.abs(away[is_edge] - np.median(away[is_edge])))))
            weights = np.where(is_edge, 1 / (1 + (away / (2 * spread)) ** 2) ** 2, 0)
            pose = pose.moved(rotated, normals, weights, away * level.reduction, allowed)
        return pose

    def _residual(self, between: Grey, pose: "_Pose") -> float:
        return float(min(max(1 - self._agreement(between, pose).mean(), 0), 1))

    def _agreement(self, picture: Grey, pose: "_Pose") -> Floats:
        """Say of each point how well the picture's edge there has its direction: 1 is all, 0 is chance."""
        at = self._between.at(pose.turned(self._points) + pose.shift.astype(np.float32))
        around = cv2.remap(
            picture,
            at[:, :1] + np.array([1, -1, 0, 0], dtype=np.float32),
            at[:, 1:] + np.array([0, 0, 1, -1], dtype=np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        ).astype(np.float32)
        gradient = (around[:, ::2] - around[:, 1::2]) / 2
        height, width = picture.shape
        inside = (at >= 1).all(axis=1) & (at[:, 0] <= width - 2) & (at[:, 1] <= height - 2)
        faint = _FAINT * self._contrasts
        strength = np.hypot(gradient[:, 0], gradient[:, 1]) + faint
        along = (gradient * pose.turned_only(self._normals)).sum(axis=1)
        agreement: Floats = np.where(inside, np.minimum(along / strength * (1 + 2 * _FAINT), 1), 0)
        return agreement

    def agreement_at(self, picture: Frame, place: Place) -> Floats:
        """Say of each point of the reference how well a picture's edge there has its direction, N.

        Args:
            picture: H×W×3 uint8, BGR, the camera's whole picture.
            place: of the part in it.
        """
        x, y, width, height = self._search
        grey = in_grey(picture[y : y + height, x : x + width])
        between = self._between.of(self._fine.of(grey), self._fine)
        return self._agreement(between, _Pose.of(place, self._middle))

    def _fault(self, place: Place | None) -> str | None:
        """Say why a place is none where the part may lie; None if it may."""
        allowed = self.reference.allowed
        if place is None or place.residual > allowed.residual:
            share = "all" if place is None else f"{place.residual:.0%}"
            return (
                f"no part was found: {share} of its edges are missing, at most {allowed.residual:.0%} may be"
            )
        away = max(abs(place.dx), abs(place.dy))
        if away > allowed.shift + 0.5:
            return f"the part lies {away:.0f} pixels away, at most {allowed.shift:g} are allowed"
        if abs(place.turn) > allowed.turn + 0.5:
            return f"the part is turned by {place.turn:.1f}°, at most {allowed.turn:.3g}° are allowed"
        if abs(place.scale - 1) > allowed.scale + 0.005:
            return f"the part has {place.scale:.1%} of the taught size, {allowed.scale:.1%} off is allowed"
        return None

    def _is_taken(self, place: Place, found: list[Place]) -> bool:
        apart = 0.5 * min(self.reference.part.width, self.reference.part.height)
        return any(math.hypot(place.dx - other.dx, place.dy - other.dy) < apart for other in found)

    def _in_rows(self, found: list[Place]) -> list[Place]:
        """Order parts as they are read: rows from above, each from left to right."""
        row: list[list[Place]] = []
        for place in sorted(found, key=lambda place: place.dy):
            if row and place.dy - row[-1][0].dy < self.reference.part.height / 2:
                row[-1].append(place)
            else:
                row.append([place])
        return [place for places in row for place in sorted(places, key=lambda place: place.dx)]


class _Level:
    """The search region, reduced by a whole number: OpenCV is five times faster then."""

    def __init__(self, reduction: float, width: int, height: int) -> None:
        self.reduction = max(1, min(round(reduction), width, height))
        self.size = width // self.reduction, height // self.reduction

    def of(self, grey: Grey, level: "_Level | None" = None) -> Grey:
        """Reduce the search region, or another level of it that is a whole number finer."""
        by = self.reduction // (1 if level is None else level.reduction)
        if by == 1:
            return grey
        width, height = self.size
        return cv2.resize(  # type: ignore[return-value]
            grey[: height * by, : width * by], self.size, interpolation=cv2.INTER_AREA
        )

    def at(self, points: Floats) -> Floats:
        """Give points of the search region, N×2, in pixels of this size."""
        placed: Floats = (points + np.float32(0.5)) / np.float32(self.reduction) - np.float32(0.5)
        return placed


class _Pose(NamedTuple):
    """A place while it is refined: the part's middle in the search region, radians, and size."""

    shift: NDArray[np.float64]
    turn: float
    scale: float

    @classmethod
    def of(cls, place: Place, middle: NDArray[np.float64]) -> "_Pose":
        return cls(middle + np.array([place.dx, place.dy]), math.radians(place.turn), place.scale)

    def turned_only(self, vectors: Floats) -> Floats:
        cos, sin = np.float32(math.cos(self.turn)), np.float32(math.sin(self.turn))
        return vectors @ np.array([[cos, sin], [-sin, cos]], dtype=np.float32)

    def turned(self, points: Floats) -> Floats:
        return self.turned_only(points) * np.float32(self.scale)

    def moved(self, points: Floats, normals: Floats, weights: Away, away: Away, allowed: Allowed) -> "_Pose":
        """Give the pose that brings points nearest to where edges are, ``away`` along their normals."""
        columns = [normals[:, 0], normals[:, 1]]
        if allowed.turn:
            columns.append(normals[:, 1] * points[:, 0] - normals[:, 0] * points[:, 1])
        if allowed.scale:
            columns.append((normals * points).sum(axis=1))
        design = np.stack(columns, axis=1).astype(np.float64)
        weighted = design * weights[:, None]
        squares = weighted.T @ design
        squares[np.diag_indices(len(squares))] *= 1 + 1e-6
        try:
            step = np.linalg.solve(squares, weighted.T @ away)
        except np.linalg.LinAlgError:
            return self
        turn = self.turn + (float(step[2]) if allowed.turn else 0)
        scale = self.scale * (1 + float(step[-1]) if allowed.scale else 1)
        return _Pose(self.shift + step[:2], turn, min(max(scale, 0.5), 2.0))


class _CoarseSearch:
    """Compares directions of edges at all places, turns and sizes that are allowed."""

    def __init__(
        self, level: _Level, middle: NDArray[np.float64], points: Floats, reference: Reference
    ) -> None:
        self._level = level
        self._contrast = float(np.median(reference.points[:, 4]))
        normals = reference.points[:, 2:4]
        width, height = level.size
        self._size = cv2.getOptimalDFTSize(width + 4), cv2.getOptimalDFTSize(height + 4)
        radius = max(1.0, float(np.hypot(*points.T).max()) / level.reduction)
        allowed = reference.allowed
        self._middle = level.at(middle[None].astype(np.float32))[0]
        self._reach = allowed.shift / level.reduction
        self._apart = max(2, int(0.2 * min(reference.part.width, reference.part.height) / level.reduction))
        self._turns = _steps(allowed.turn, math.degrees(1.5 / radius))
        if allowed.turn >= 180:
            self._turns = self._turns[:-1]
        self._scales = 1 + _steps(allowed.scale, 1.5 / radius)
        self._spectra = [
            (float(turn), float(scale), self._spectrum(points, normals, float(turn), float(scale)))
            for turn in self._turns
            for scale in self._scales
        ]

    def _spectrum(self, points: Floats, normals: Floats, turn: float, scale: float) -> Floats:
        """Give the Fourier transform of the part's edges about the origin, two channels for x and y."""
        width, height = self._size
        pose = _Pose(np.zeros(2), math.radians(turn), scale)
        at, directions = pose.turned(points) / np.float32(self._level.reduction), pose.turned_only(normals)
        edges = np.zeros((height, width, 2), dtype=np.float32)
        corner = np.floor(at).astype(int)
        share = at - corner
        for right in (0, 1):
            for down in (0, 1):
                weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1]) / len(points)
                places = (corner[:, 1] + down) % height, (corner[:, 0] + right) % width
                np.add.at(edges, places, weight[:, None] * directions)
        return cv2.dft(edges, flags=cv2.DFT_COMPLEX_OUTPUT)  # type: ignore[return-value]

    def candidates(self, picture: Grey, most: int) -> list[Place]:
        """Give the places that look most like the part, the best first."""
        smooth = cv2.GaussianBlur(picture, (3, 3), 0)
        x = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
        y = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
        strength = cv2.magnitude(x, y) + np.float32(0.3 * self._contrast)
        height, width = picture.shape
        directions = np.zeros((self._size[1], self._size[0], 2), dtype=np.float32)
        np.divide(x, strength, out=directions[:height, :width, 0])
        np.divide(y, strength, out=directions[:height, :width, 1])
        seen = cv2.dft(directions)
        left, top = (max(0, math.floor(middle - self._reach)) for middle in self._middle)
        right = min(width, math.ceil(self._middle[0] + self._reach) + 1)
        bottom = min(height, math.ceil(self._middle[1] + self._reach) + 1)
        rows = []
        for _, _, spectrum in self._spectra:
            both = cv2.mulSpectrums(seen, spectrum, 0, conjB=True)
            rows.append(
                cv2.dft(both, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE, nonzeroRows=0)[top:bottom, left:right, 0]
            )
        scores = np.stack(rows)
        best, highest = scores.argmax(axis=0), scores.max(axis=0)
        found = []
        for _ in range(most):
            row, column = divmod(int(highest.argmax()), highest.shape[1])
            if highest[row, column] <= 0:
                break
            turn, scale, _ = self._spectra[best[row, column]]
            dx, dy = (np.array([left + column, top + row]) - self._middle) * self._level.reduction
            found.append(Place(float(dx), float(dy), turn, scale, 1.0))
            highest[
                max(0, row - self._apart) : row + self._apart + 1,
                max(0, column - self._apart) : column + self._apart + 1,
            ] = -1
        return found


def in_grey(picture: Frame) -> Grey:
    """Give a picture's grey levels, H×W uint8."""
    return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def edges_between(grey: Grey, points: Floats, reduction: float) -> Floats:
    """Move points of edges to where a picture rises most across them, as the locator will find them.

    Args:
        grey: H×W uint8.
        points: N×5, see ``Reference.points``, found in a picture reduced by ``reduction``.
        reduction: about how far they may be off, in pixels.

    Returns:
        M×5: those at which there is an edge.
    """
    if not len(points):
        return points
    half = math.ceil(1.5 * reduction) + 1
    offsets = np.arange(-half - 1, half + 2, dtype=np.float32)
    at, normals = points[:, :2], points[:, 2:4]
    profile = cv2.remap(
        grey,
        np.ascontiguousarray(at[:, :1] + normals[:, :1] * offsets),
        np.ascontiguousarray(at[:, 1:] + normals[:, 1:] * offsets),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    away, _, is_edge = _steepest(profile)
    moved = points.copy()
    moved[:, :2] += normals * away[:, None]
    height, width = grey.shape
    inside = (moved[:, :2] >= 0).all(axis=1) & (moved[:, 0] <= width - 1) & (moved[:, 1] <= height - 1)
    kept: Floats = moved[is_edge & inside]
    return kept


def _steepest(profile: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Find where rows of grey levels rise most.

    Args:
        profile: N×M float32, an odd M; sampled a pixel apart.

    Returns:
        N each: pixels from the middle, to a fraction of one; grey levels per pixel; and whether that is
        inside the row and not at its end.
    """
    rise = (profile[:, 2:] - profile[:, :-2]) / 2
    best = rise.argmax(axis=1)
    rows = np.arange(len(best))
    inner = best.clip(1, rise.shape[1] - 2)
    before, top, after = (rise[rows, inner + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2 * top + after, -1e-6)
    away = inner + ((before - after) / (2 * bend)).clip(-1, 1) - rise.shape[1] // 2
    return away, top, best == inner


def _steps(reach: float, step: float) -> NDArray[np.float64]:
    """Give values from -reach to reach, at most ``step`` apart, with 0 among them."""
    count = math.ceil(reach / step) if reach else 0
    return np.linspace(-reach, reach, 2 * count + 1)
