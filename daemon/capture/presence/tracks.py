import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
"""H×W uint8: 255 where there is something, 0 where not."""

_REMEMBERED: Final = 4  # steps of the belt
_MOVED: Final = 2.0  # pixels in so many steps, from which on it is known where it moves
_CREEPS: Final = 0.25  # pixels
_TRUSTED: Final = 0.5  # of the belt's step, by which those of the things in view may differ
_LOST_AFTER: Final = 3  # frames
_COVERED: Final = 0.5
_LARGER: Final = 1.3  # than each of several things is what shows them as one
_DISAGREE: Final = 3.0  # pixels
_STEP_GATE: Final = 0.6  # of the belt's step, by which a part's may differ
_SIZE_GATE: Final = 0.35  # of a part's size
_AGAIN: Final = 0.5  # of a thing's box
_STANDS: Final = 0.75  # pixels of the small picture
_MIDDLE: Final = 0.5
_CLEARLY: Final = 1.0  # pixels for each pair, by which another motion must fit better


class Blob(NamedTuple):
    """Something in the small picture; lengths are its pixels."""

    left: float
    top: float
    right: float
    bottom: float
    area: float
    """Inside its contour, holes included."""
    clipped: tuple[bool, bool, bool, bool]
    """Whether it reaches the left, upper, right and lower border: it may go on beyond."""

    @property
    def whole(self) -> bool:
        """Whether all of it is in view."""
        return not any(self.clipped)

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self[:4]

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of its box, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> float:
        """The longer side of its box."""
        return max(self.right - self.left, self.bottom - self.top)

    def moved(self, step: tuple[float, float]) -> "Blob":
        """Give it as it would be elsewhere."""
        x, y = step
        return self._replace(
            left=self.left + x, right=self.right + x, top=self.top + y, bottom=self.bottom + y
        )

    def shared(self, other: "Blob") -> float:
        """Give the share of its box that lies in another's."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        box = (self.right - self.left) * (self.bottom - self.top)
        return max(width, 0.0) * max(height, 0.0) / max(box, 1e-6)


def blobs_in(mask: Mask, least_area: float) -> list[Blob]:
    """Find what a mask shows, by its outer contours.

    Args:
        mask: H×W uint8.
        least_area: in pixels; what is smaller is nothing.
    """
    height, width = mask.shape
    found: list[Blob] = []
    for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        x, y, w, h = cv2.boundingRect(contour)
        # The contour runs through the middles of the outermost pixels.
        area = cv2.contourArea(contour) + len(contour) / 2 + 1
        if area >= least_area:
            clipped = (x == 0, y == 0, x + w == width, y + h == height)
            found.append(Blob(x, y, x + w, y + h, area, clipped))
    found.sort(key=lambda blob: -blob.area)
    apart: list[Blob] = []
    for blob in found:  # what lies in another's box belongs to it
        if not any(blob.shared(larger) > 0.8 for larger in apart):
            apart.append(blob)
    return apart


@dataclass(slots=True, eq=False)
class Track:
    """One thing that is followed from picture to picture."""

    blob: Blob
    born_whole: bool
    way: float = 0.0
    """How far it has come since it was first seen, along the belt or against it."""
    still: int = 0
    """Pictures for which it has not moved."""
    unseen: int = 0
    """Pictures in which it was not found."""
    merged: bool = False
    """Whether it is seen as one with another now."""
    was_merged: bool = False
    done: bool = False
    """Whether its picture was taken, or given up."""
    whole_area: float = 0.0
    """Its area when it was whole in view last."""
    taken_area: float = 0.0
    """Its area when its picture was taken."""
    candidates: deque[object] = field(default_factory=lambda: deque(maxlen=4))


class Tracks:
    """Follows what lies on a belt. All of it moves alike, by a step that changes slowly, or stands."""

    def __init__(self, width: int, height: int) -> None:
        """Follow nothing yet.

        Args:
            width: of the small pictures.
            height: of them.
        """
        self.width, self.height = width, height
        self._unions: dict[frozenset[int], Blob] = {}
        self._lately: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self.all: list[Track] = []
        self.step: tuple[float, float] | None = None
        """How far the belt moves from picture to picture when it moves; None while that is not known."""
        self.now: tuple[float, float] | None = None
        """How far it has moved since the last picture; None when nothing in view tells."""

    @property
    def stands(self) -> bool:
        """Whether something is in view and nothing moves."""
        seen = [track for track in self.all if not track.unseen]
        return bool(seen) and all(track.still >= 3 for track in seen)

    @property
    def has_crossed(self) -> bool:
        """Whether something in view has come so far that the belt has brought everything out of its place."""
        return any(track.way > min(self.width, self.height) for track in self.all)

    def update(self, blobs: list[Blob], new_from: float) -> list[Track]:
        """Find the followed things in the next picture, and follow what is new.

        Args:
            blobs: what the picture shows.
            new_from: area from which on something new is followed.

        Returns:
            What is gone.
        """
        unions = self._unions_among(blobs)
        matched, motion = self._match(blobs, unions)
        self._match_grown(blobs, unions, matched)
        found = set(matched.values()) | {number for _, number in unions}
        steps = self._steps_of(unions, blobs)
        for track in self.all:
            track.merged = False
        for track, number in matched.items():
            blob = blobs[number]
            step = _step(track.blob, blob, motion)
            track.blob, track.unseen = blob, 0
            track.whole_area = blob.area if blob.whole else track.whole_area
            length = math.hypot(*step)
            track.still = track.still + 1 if length < _STANDS else 0
            track.way += length if length >= _STANDS else 0.0
            steps.append(step)
        self._note_motion(steps, motion)
        for track in self.all:
            if track not in matched:
                self._coast(track)
        gone = [track for track in self.all if self._is_gone(track)]
        self.all = [track for track in self.all if track not in gone]
        self.all += [
            Track(blob, blob.whole)
            for number, blob in enumerate(blobs)
            if number not in found and blob.area >= new_from
        ]
        return gone

    def resume(self, blobs: list[Blob], missed: int) -> list[Track]:
        """Find the followed things again after pictures in which nothing could be seen; to be updated then.

        The belt has stood meanwhile or gone on, whatever explains more.

        Args:
            blobs: what is seen now.
            missed: so many pictures.

        Returns:
            What is not found: it is gone, and what lies there is new.
        """
        x, y = self.now or (0.0, 0.0)
        found: dict[tuple[float, float], list[Track]] = {}
        for way in ((x * missed, y * missed), (0.0, 0.0)):
            at_last = (way[0] + x, way[1] + y) if any(way) else way
            found[way] = [
                track
                for track in self.all
                if any(track.blob.moved(at_last).shared(blob) > _AGAIN for blob in blobs)
            ]
        way = max(found, key=lambda way: len(found[way]))
        if not any(way):
            self.now = None if self.now is None else (0.0, 0.0)
        gone = [track for track in self.all if track not in found[way]]
        self.all = found[way]
        for track in self.all:
            track.blob = track.blob.moved(way)
        self._unions.clear()
        return gone

    def _note_motion(self, steps: list[tuple[float, float]], motion: tuple[float, float] | None) -> None:
        """Tell from the steps of all things how far the belt has moved."""
        if motion is not None:  # one that grew together with another, or came apart, tells nothing
            limit = _TRUSTED * math.hypot(*motion) + 3
            near = [step for step in steps if math.hypot(step[0] - motion[0], step[1] - motion[1]) <= limit]
            steps = near or steps
        if not steps:
            self.now = None
            self._lately.clear()
            return
        self.now = median(x for x, _ in steps), median(y for _, y in steps)
        self._lately.append(self.now)
        # Single pixels come and go at the edges of what stands.
        x, y = sum(x for x, _ in self._lately), sum(y for _, y in self._lately)
        moving = sum(math.hypot(*step) >= _CREEPS for step in self._lately)
        if math.hypot(x, y) >= _MOVED and moving:
            self.step = x / moving, y / moving

    def _match(
        self, blobs: list[Blob], unions: list[tuple[frozenset[int], int]]
    ) -> tuple[dict[Track, int], tuple[float, float] | None]:
        """Pair tracks with blobs under the motion of the belt that explains most of them best; give both."""
        in_unions = {thing for things, _ in unions for thing in things}
        tracks = [track for track in self.all if id(track) not in in_unions]
        apart = {number: blob for number, blob in enumerate(blobs) if number not in {at for _, at in unions}}
        best: dict[Track, int] = {}
        chosen, least = self.now or self.step, float("inf")
        for motion in dict.fromkeys((self.now or self.step, self.step, (0.0, 0.0))):
            matched, misfit = self._match_by(motion, tracks, apart)
            # Equal parts at equal distances fit several motions: then the belt goes on as it did.
            clearly = misfit + _CLEARLY * len(matched) < least
            if not best or len(matched) > len(best) or (len(matched) == len(best) and clearly):
                best, chosen, least = matched, motion, misfit
        return best, chosen

    def _match_by(
        self, motion: tuple[float, float] | None, tracks: list[Track], blobs: dict[int, Blob]
    ) -> tuple[dict[Track, int], float]:
        """Pair tracks with blobs, the best pairs first; say by how much they do not fit together."""
        pairs: list[tuple[float, int, int]] = []
        for at, track in enumerate(tracks):
            for number, blob in blobs.items():
                misfit = self._misfit(track, blob, motion)
                if misfit is not None:
                    pairs.append((misfit, at, number))
        matched: dict[Track, int] = {}
        taken: set[int] = set()
        total = 0.0
        for misfit, at, number in sorted(pairs):
            track = tracks[at]
            if track not in matched and number not in taken:
                matched[track] = number
                taken.add(number)
                total += misfit
        return matched, total

    def _misfit(self, track: Track, blob: Blob, motion: tuple[float, float] | None) -> float | None:
        """How far a blob is from where a track is expected; None when it cannot be the same thing."""
        before = track.blob
        if before.whole and blob.whole and not 0.5 < blob.area / before.area < 2:
            return None
        step = _step(before, blob, motion)
        if motion is None:
            far = math.hypot(*step)
            return far if far <= _MIDDLE * max(self.width, self.height) else None
        # A track that was not found has been moved on already.
        off = math.hypot(step[0] - motion[0], step[1] - motion[1])
        fast = math.hypot(*motion) if self.step is None else math.hypot(*self.step)
        gate = _STEP_GATE * fast + _SIZE_GATE * max(before.size, blob.size) + 2
        return off if off <= gate else None

    def _unions_among(self, blobs: list[Blob]) -> list[tuple[frozenset[int], int]]:
        """Find blobs that show several followed things as one, if the belt goes on as it did."""
        motion = self.now or self.step or (0.0, 0.0)
        unions: list[tuple[frozenset[int], int]] = []
        for number, blob in enumerate(blobs):
            inside = [
                track
                for track in self.all
                if not track.unseen and track.blob.moved(motion).shared(blob) > _COVERED
            ]
            if len(inside) > 1 and blob.area > _LARGER * max(track.blob.area for track in inside):
                unions.append((frozenset(map(id, inside)), number))
        return unions

    def _match_grown(
        self, blobs: list[Blob], unions: list[tuple[frozenset[int], int]], matched: dict[Track, int]
    ) -> None:
        """Match what is left of the blobs with the one thing that each shows, whatever its size."""
        motion = self.now or self.step or (0.0, 0.0)
        in_unions = {thing for things, _ in unions for thing in things}
        for number in set(range(len(blobs))) - set(matched.values()) - {at for _, at in unions}:
            inside = [
                track
                for track in self.all
                if not track.unseen
                and track not in matched
                and id(track) not in in_unions
                and track.blob.moved(motion).shared(blobs[number]) > _COVERED
            ]
            if len(inside) == 1:
                matched[inside[0]] = number

    def _steps_of(
        self, unions: list[tuple[frozenset[int], int]], blobs: list[Blob]
    ) -> list[tuple[float, float]]:
        """Tell the belt's motion from things that are seen as one in this picture and the one before."""
        before, self._unions = self._unions, {things: blobs[number] for things, number in unions}
        return [
            _step(before[things], blob, self.now) for things, blob in self._unions.items() if things in before
        ]

    def _coast(self, track: Track) -> None:
        """Move a track that was not found by itself as the belt moves; it may be seen as one with another."""
        track.blob = track.blob.moved(self.now or self.step or (0.0, 0.0))
        if any(id(track) in things for things in self._unions):
            track.merged = track.was_merged = True
            track.unseen = 0
        else:
            track.unseen += 1

    def _is_gone(self, track: Track) -> bool:
        if track.unseen == 0 and not track.merged:
            return False
        blob = track.blob
        inside = blob.shared(Blob(0, 0, self.width, self.height, 0, (False,) * 4))
        return track.unseen > _LOST_AFTER or inside < (0.6 if any(blob.clipped) or track.unseen else 0.2)


def _step(before: Blob, after: Blob, motion: tuple[float, float] | None) -> tuple[float, float]:
    """How far a thing has moved, told by the sides that are in view both times.

    Where two sides disagree, it has grown together with something or come apart: then that side is believed
    which goes with the belt's motion.
    """
    expected = (None, None) if motion is None else motion
    return _side_step(before, after, 0, expected[0]), _side_step(before, after, 1, expected[1])


def _side_step(before: Blob, after: Blob, near: int, expected: float | None) -> float:
    """Give the step along x (0) or y (1)."""
    far = near + 2
    near_side, far_side = after.sides[near] - before.sides[near], after.sides[far] - before.sides[far]
    is_near_seen = not (before.clipped[near] or after.clipped[near])
    is_far_seen = not (before.clipped[far] or after.clipped[far])
    if is_near_seen != is_far_seen:
        return near_side if is_near_seen else far_side
    if expected is not None and abs(near_side - far_side) > _DISAGREE:
        return min(near_side, far_side, key=lambda side: abs(side - expected))
    return (near_side + far_side) / 2
