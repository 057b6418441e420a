"""Learns what the belt looks like, also where parts lie on it from the beginning."""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from daemon.capture.drivers import Picture, Present
from daemon.capture.presence.background import Background
from daemon.capture.presence.tracks import Tracks, blobs_in
from pictures.frames import Frame

_LEARNED_FROM: Final = 25  # pictures
_LEAST_LEARNED_FROM: Final = 9
_MOST_LEARNED_FROM: Final = 240
_MOST_KEPT_BYTES: Final = 200_000_000  # of pictures
_STILL: Final = 25  # pictures


class Shot(NamedTuple):
    """A picture that is kept until the background is known."""

    picture: Picture
    captured_ns: int
    small: Frame


class Learned(NamedTuple):
    """A background, and the pictures that are to be looked at with it."""

    background: Background
    shots: list[Shot]
    is_certain: bool
    """Whether something has crossed the picture, and nothing was seen that is a ghost."""
    lost: str | None = None
    """Why parts may have gone by that nobody can tell of any more; None when there are none."""


class Learning:
    """Keeps pictures until they show what lies on the belt and what is the belt.

    Where a part lay in the pictures that a background was made of, its absence looks like a part later. Such
    a ghost has its edges in the background, a part has them in the picture. As long as a background shows
    ghosts in the pictures that it was made of, more pictures are taken, each after something has moved.
    """

    def __init__(self, present: Present, shots: Sequence[Shot] = (), *, is_doubted: bool = False) -> None:
        """Begin to learn.

        Args:
            present: what a part is.
            shots: the first pictures, oldest first.
            is_doubted: whether a background was found to be wrong, so that only pictures of what moves help.
        """
        self._present, self._is_doubted = present, is_doubted
        self._smalls = [shot.small for shot in shots]
        self._shots = deque(shots)
        self._still: list[Frame] = []
        self._due = _LEARNED_FROM

    def add(self, shot: Shot) -> Learned | None:
        """Take the next picture; give the background as soon as it is known."""
        if self._is_doubted and self._smalls and not self._has_moved(self._smalls[-1], shot.small):
            return self._while_it_stands(shot.small)
        self._still.clear()
        self._smalls.append(shot.small)
        self._shots.append(shot)
        while len(self._shots) > max(_LEAST_LEARNED_FROM, _MOST_KEPT_BYTES // shot.picture.pixels.nbytes):
            self._shots.popleft()
        if len(self._smalls) < self._due:
            return None
        self._due = min(2 * self._due, _MOST_LEARNED_FROM)
        background = self._background(self._smalls)
        trial = Trial(background, self._present, self._smalls)
        is_enough = trial.is_right or not (trial.is_wrong or self._is_doubted)
        if is_enough and (trial.is_decided or len(self._smalls) >= _MOST_LEARNED_FROM):
            return self._learned(background, is_certain=trial.is_certain)
        self._is_doubted = True
        if len(self._smalls) < _MOST_LEARNED_FROM:
            return None
        lost = "what is part and what is belt cannot be told: it is taken as it looks most of the time"
        return Learned(background, [shot], is_certain=True, lost=lost)

    def finish(self) -> Learned | None:
        """Give the best background that there is, when no more pictures come."""
        if len(self._smalls) < _LEAST_LEARNED_FROM:
            return None
        return self._learned(self._background(self._smalls), is_certain=True)

    def _while_it_stands(self, small: Frame) -> Learned | None:
        """Once in each halt, see whether what was seen so far is enough, or the belt is empty now."""
        if len(self._still) == _STILL:
            return None
        self._still.append(small)
        if len(self._still) < _STILL:
            return None
        if len(self._smalls) >= _LEAST_LEARNED_FROM:
            background = self._background(self._smalls)
            trial = Trial(background, self._present, self._smalls)
            if trial.is_right and trial.is_decided:
                return self._learned(background, is_certain=trial.is_certain)
        background = self._background(self._still)
        if Trial(background, self._present, self._smalls).is_wrong:
            return None
        return self._learned(background, is_certain=False)

    def _learned(self, background: Background, *, is_certain: bool) -> Learned:
        gone = len(self._smalls) - len(self._shots)
        lost = f"parts may have gone by in {gone} pictures, too many to be kept" if gone else None
        return Learned(background, list(self._shots), is_certain, lost)

    def _background(self, pictures: list[Frame]) -> Background:
        return Background(pictures, self._present.contrast)

    def _has_moved(self, before: Frame, now: Frame) -> bool:
        least = self._present.min_area * now[..., 0].size
        return bool(blobs_in(self._background([before]).foreground(now), least / 2))


class Trial:
    """What becomes of a background when it is held against pictures.

    Attributes:
        is_wrong: something was seen that is a ghost.
        is_right: nothing was, and something has moved by its own length.
        is_certain: nothing was, and something has crossed the picture.
        is_decided: it is known of each place whether what was seen there most of the time is the belt.
    """

    def __init__(self, background: Background, present: Present, pictures: Sequence[Frame]) -> None:
        """Follow what small pictures show."""
        height, width = pictures[0].shape[:2]
        tracks = Tracks(width, height)
        least = present.min_area * height * width
        self.is_wrong = self.is_right = self.is_certain = False
        self.is_decided = not blobs_in(background.undecided(), least / 2)
        for picture in pictures:
            mask = background.foreground(picture)
            if background.is_another(mask):
                continue
            known = list(tracks.all)
            tracks.update(blobs_in(mask, least / 2), least)
            if background.shows_ghosts(picture, mask, tracks.all, known):
                self.is_wrong, self.is_right, self.is_certain = True, False, False
                return
            self.is_right = self.is_right or any(track.way > track.blob.size for track in tracks.all)
            self.is_certain = self.is_certain or tracks.has_crossed
