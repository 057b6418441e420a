"""Finds the parts in a free-running stream, and takes exactly one picture of each."""

from statistics import median
from typing import Final, NamedTuple

import cv2
import numpy as np

from daemon.capture.choice import Missed, Outcome, Taken
from daemon.capture.drivers import CameraSettings, Picture, Present
from daemon.capture.link import Watch
from daemon.capture.presence.background import Background, is_dark
from daemon.capture.presence.learning import Learned, Learning, Shot
from daemon.capture.presence.tracks import Blob, Mask, Track, Tracks, blobs_in
from pictures.frames import Frame, Roi, cut_out

_LONGEST_SIDE: Final = 192  # pixels of the small picture in which parts are looked for
_BAND: Final = 0.08  # of the way through the picture, to each side of the middle
_STANDS: Final = 3  # pictures in which nothing moves
_STANDS_FOR_GOOD: Final = 8
_DARK_FOR: Final = 3  # pictures
_CHANGED_FOR: Final = 10
_GHOST: Final = 5
_SAME: Final = 0.5  # of a part's box
_TWO: Final = 1.6  # times its area when it was taken: it leaves together with another part
_SHARPNESS_PIXELS: Final = 256  # of a side, that are looked at for sharpness


class Candidate(NamedTuple):
    """A picture in which a part is whole."""

    picture: Picture
    captured_ns: int
    off: float
    """How far the part is from the middle, as a share of the way through the picture."""
    sharpness: float
    part: str | None


class Presence:
    """Looks at each picture of a free-running camera.

    Attributes:
        pictures: looked at.
        empty: of them, those without any part.
        parts: taken.
        missed: seen and not taken.
        speed: of the belt along x and y, in pixels of the camera's picture per second, when it moved last.
        trouble: why no part can be seen now; None while all is well.
        boxes: of what is in view now, in pixels of the camera's picture; for who looks on.
    """

    def __init__(self, settings: CameraSettings, present: Present) -> None:
        """Know nothing of the background yet.

        Args:
            settings: of the camera; parts are looked for in its ``roi``.
            present: what a part is.
        """
        self._settings, self._present = settings, present
        self._background: Background | None = None
        self._tracks: Tracks | None = None
        self._learning = Learning(present)
        self._in_doubt = True
        """Whether a part may have lain still where the background was learned, and been taken for it."""
        self._before: Shot | None = None
        """The last picture, while the background is in doubt."""
        self._judged: list[Blob] = []
        """Where parts lay of which a picture was taken already, when the background was lost."""
        self._factor = 1
        self._dark_for = self._blind_for = 0
        self._changed: list[Shot] = []
        """The last pictures, if nothing in them looks as before."""
        self._before_ns: int | None = None
        self._speeds: list[tuple[float, float]] = []
        self.pictures = self.empty = self.parts = self.missed = 0
        self.speed: tuple[float, float] | None = None
        self.trouble: str | None = None
        self.boxes: list[Roi] = []
        self.whole: list[bool] = []

    @property
    def state(self) -> str:
        """What a person wants to know of the last picture, in a word or two."""
        if self.trouble is not None:
            return self.trouble
        if self._background is None:
            return "learns the background"
        if not self.boxes:
            return "empty"
        halves = self.whole.count(False)
        return f"{len(self.boxes)} in view" + (f", {halves} of them in part" if halves else "")

    def look(self, picture: Picture, captured_ns: int) -> list[Outcome]:
        self.pictures += 1
        small = self._shrunk(picture.pixels)
        if self._is_dark(small):
            self._dark_for += 1
            self._blind_for += 1
            if self._dark_for == _DARK_FOR:
                self.trouble = "dark: the lamp is off, or the lens covered: no part can be seen"
                return [Missed(self.trouble, None, captured_ns)]
            return []
        self._dark_for = 0
        if self.trouble is not None and self.trouble.startswith("dark"):
            self.trouble = None
        shot = Shot(picture, captured_ns, small)
        return self._learn(shot) if self._background is None else self._watch(self._background, shot)

    def finish(self, now_ns: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        learned = self._learning.finish() if self._background is None else None
        if learned is not None:
            outcomes += self._begin(learned)
        for track in self._tracks.all if self._tracks is not None else ():
            outcomes += self._close(track, now_ns, "the pictures ended before it was whole in view")
        self._tracks = None
        return outcomes

    def watch(self) -> Watch:
        return Watch(
            pictures=self.pictures,
            empty=self.empty,
            parts=self.parts,
            missed=self.missed,
            triggers=0,
            doubles=0,
            speed=self.speed,
            trouble=self.trouble,
        )

    def _shrunk(self, pixels: Frame) -> Frame:
        seen = cut_out(pixels, self._settings.roi)
        height, width = seen.shape[:2]
        self._factor = factor = max(1, -(-max(height, width) // _LONGEST_SIDE))
        if factor == 1:
            return np.ascontiguousarray(seen)
        seen = seen[: height // factor * factor, : width // factor * factor]
        coarse = max(1, factor // 2)  # its noise is averaged even so
        small = cv2.resize(
            np.ascontiguousarray(seen[::coarse, ::coarse]),
            (width // factor, height // factor),
            interpolation=cv2.INTER_AREA,
        )
        return np.asarray(small, np.uint8)

    def _is_dark(self, small: Frame) -> bool:
        return is_dark(small) if self._background is None else self._background.is_dark(small)

    def _learn(self, shot: Shot) -> list[Outcome]:
        """Keep pictures until the background can be told from them; then look at these."""
        learned = self._learning.add(shot)
        return [] if learned is None else self._begin(learned)

    def _begin(self, learned: Learned) -> list[Outcome]:
        height, width = learned.shots[0].small.shape[:2]
        self._background, self._tracks = learned.background, Tracks(width, height)
        self._blind_for = 0
        self._in_doubt, self._before = not learned.is_certain, None
        outcomes: list[Outcome] = []
        if learned.lost is not None:
            self.missed += 1
            outcomes.append(Missed(f"at the start: {learned.lost}", None, learned.shots[-1].captured_ns))
        for shot in learned.shots:
            if self._background is None:
                outcomes += self._learn(shot)
            else:
                outcomes += self._watch(self._background, shot)
        return outcomes

    def _lose_background(self, learning: Learning) -> None:
        """Learn another background, and remember which parts have their verdict."""
        assert self._tracks is not None
        judged = [track.blob for track in self._tracks.all if track.done and not track.unseen]
        self._judged += [blob.moved(self._tracks.now or (0.0, 0.0)) for blob in judged]
        self._learning, self._background, self._tracks, self._before = learning, None, None, None

    def _is_wrong(self, background: Background, shot: Shot, mask: Mask, known: list[Track]) -> bool:
        """Learn the background again if a part that it was made of is seen to have left."""
        assert self._tracks is not None
        before, self._before = self._before, shot
        if background.shows_ghosts(shot.small, mask, self._tracks.all, known):
            self._tracks.all = known
            shots = [] if before is None else [before]
            self._lose_background(Learning(self._present, shots, is_doubted=True))
            return True
        if self._tracks.has_crossed:
            self._in_doubt, self._before = False, None
        return False

    def _recognise(self, new: list[Track]) -> None:
        """Take no second picture of parts that lie where they lay when the background was lost."""
        for track in new:
            near = [blob for blob in self._judged if blob.shared(track.blob) > _SAME]
            if near:
                track.done, track.taken_area = True, track.blob.area
                self._judged.remove(near[0])
        if not self._in_doubt:
            self._judged.clear()

    def _watch(self, background: Background, shot: Shot) -> list[Outcome]:
        assert self._tracks is not None
        picture, captured_ns, small = shot
        mask = background.foreground(small)
        if background.is_another(mask):
            return self._notice_change(shot)
        self._changed.clear()
        self.trouble = None
        tracks = self._tracks
        least = self._present.min_area * mask.size
        known = list(tracks.all)
        blobs = blobs_in(mask, least / 2)
        gone = tracks.resume(blobs, self._blind_for) if self._blind_for else []
        self._blind_for = 0
        gone += tracks.update(blobs, least)
        if self._in_doubt and self._is_wrong(background, shot, mask, known):
            return self._learn(shot)
        if self._judged:
            self._recognise([track for track in tracks.all if track not in known])
        outcomes: list[Outcome] = []
        for track in gone:
            outcomes += self._close(track, captured_ns, "it was never whole in view")
        self._measure(tracks, picture, captured_ns)
        self._forget_ghosts(background, small, mask)
        self.empty += not tracks.all
        for track in tracks.all:
            if not track.done and not track.unseen:
                outcomes += self._consider(track, picture, captured_ns)
        background.follow(small, mask)
        seen = [track for track in tracks.all if not track.unseen]
        self.boxes = [self._box(track.blob) for track in seen]
        self.whole = [track.blob.whole for track in seen]
        return outcomes

    def _notice_change(self, shot: Shot) -> list[Outcome]:
        """Learn another background when nothing looks as before: the light or the camera was moved."""
        self._changed.append(shot)
        self._blind_for += 1
        if len(self._changed) < _CHANGED_FOR:
            return []
        self._lose_background(Learning(self._present, self._changed))
        self._changed = []
        self.trouble = "the background has changed: the light, the belt or the camera; it is learned again"
        return [Missed(self.trouble, None, shot.captured_ns)]

    def _measure(self, tracks: Tracks, picture: Picture, captured_ns: int) -> None:
        """Tell the belt's speed from how far it has come since the picture before."""
        at_ns = captured_ns if picture.device_ns is None else picture.device_ns
        before_ns, self._before_ns = self._before_ns, at_ns
        if before_ns is None or tracks.now is None or at_ns <= before_ns:
            return
        per_s = self._factor * 1e9 / (at_ns - before_ns)
        self._speeds = [*self._speeds[-4:], (tracks.now[0] * per_s, tracks.now[1] * per_s)]
        self.speed = (
            round(median(x for x, _ in self._speeds), 1),
            round(median(y for _, y in self._speeds), 1),
        )

    def _forget_ghosts(self, background: Background, small: Frame, mask: Mask) -> None:
        """Take for background what stays where it was first seen, amid the picture, while the belt moves.

        Where a part lay while the background was learned, its absence looks like a part.
        """
        tracks = self._tracks
        if tracks is None or tracks.now is None or not any(t.way > t.blob.size / 2 for t in tracks.all):
            return
        moves = any(track.still == 0 and track.way > 0 and not track.unseen for track in tracks.all)
        for track in list(tracks.all):
            is_ghost = track.born_whole and track.still >= _GHOST and track.way < track.blob.size / 2
            if moves and is_ghost:
                place = np.zeros_like(mask)
                blob = track.blob
                box = slice(int(blob.top), int(blob.bottom)), slice(int(blob.left), int(blob.right))
                place[box] = mask[box]
                background.absorb(small, place)
                tracks.all.remove(track)

    def _consider(self, track: Track, picture: Picture, captured_ns: int) -> list[Outcome]:
        """Keep the picture for a part that is whole in it, and decide once it can hardly get better."""
        assert self._tracks is not None
        blob, tracks = track.blob, self._tracks
        if track.merged and self._progress(blob) < 0:
            return []  # it may come apart again
        if not blob.whole or track.merged:
            return self._take(track) if track.candidates else []
        progress = self._progress(blob)
        in_band = abs(progress) <= _BAND
        sharpness = self._sharpness(picture.pixels, blob) if in_band else 0.0
        part = self._name(picture, blob)
        track.candidates.append(Candidate(picture, captured_ns, abs(progress), sharpness, part))
        if tracks.stands:
            for_good = tracks.step is None and track.still >= _STANDS_FOR_GOOD
            return self._take(track) if (in_band and track.still >= _STANDS) or for_good else []
        known = tracks.step is not None and track.way > 0
        return self._take(track) if known and progress >= 0 else []

    def _progress(self, blob: Blob) -> float:
        """How far a part is behind the middle, along the belt, as a share of the way through the picture."""
        assert self._tracks is not None
        width, height = self._small_size()
        x, y = blob.centre[0] - width / 2, blob.centre[1] - height / 2
        if self._tracks.step is None:
            return -max(abs(x) / width, abs(y) / height)
        along = np.array(self._tracks.step) / max(float(np.hypot(*self._tracks.step)), 1e-6)
        way = abs(along[0]) * width + abs(along[1]) * height
        return float((x * along[0] + y * along[1]) / max(way, 1e-6))

    def _small_size(self) -> tuple[int, int]:
        assert self._tracks is not None
        return self._tracks.width, self._tracks.height

    def _take(self, track: Track) -> list[Outcome]:
        """Choose a part's picture: near the middle the sharpest, otherwise the nearest."""
        track.done, track.taken_area = True, track.whole_area
        candidates = [entry for entry in track.candidates if isinstance(entry, Candidate)]
        track.candidates.clear()
        near = [candidate for candidate in candidates if candidate.off <= _BAND]
        if near:
            chosen = max(near, key=lambda candidate: candidate.sharpness * (1 - candidate.off / (2 * _BAND)))
        else:
            chosen = min(candidates, key=lambda candidate: candidate.off)
        most = self._present.max_area
        share = track.blob.area / (self._small_size()[0] * self._small_size()[1])
        if most is not None and share > most and track.blob.whole:
            self.missed += 1
            error = f"what is in view covers {share:.3f} of the picture, more than max_area {most:g}"
            return [Missed(f"{error}: parts touch, or it is no part", chosen.part, chosen.captured_ns)]
        self.parts += 1
        return [Taken(chosen.picture, chosen.part, chosen.captured_ns)]

    def _close(self, track: Track, captured_ns: int, why: str) -> list[Outcome]:
        """Decide about a part that is gone."""
        if track.done and not 0 < _TWO * track.taken_area < track.whole_area:
            return []
        if track.candidates:
            return self._take(track)
        track.done = True
        self.missed += 1
        if track.was_merged or track.taken_area:
            why = "it touched another one all the time"
        return [Missed(f"a part was seen and not taken: {why}", None, captured_ns)]

    def _sharpness(self, pixels: Frame, blob: Blob) -> float:
        """Variance of the Laplacian in the middle of a part."""
        seen = cut_out(pixels, self._box(blob))
        height, width = seen.shape[:2]
        top, left = max(0, height - _SHARPNESS_PIXELS) // 2, max(0, width - _SHARPNESS_PIXELS) // 2
        middle = seen[top : top + _SHARPNESS_PIXELS, left : left + _SHARPNESS_PIXELS, 1]
        return float(cv2.meanStdDev(cv2.Laplacian(np.ascontiguousarray(middle), cv2.CV_16S))[1][0, 0]) ** 2

    def _box(self, blob: Blob) -> Roi:
        """Give where something is in the camera's picture."""
        roi, factor = self._settings.roi, self._factor
        x, y = (0, 0) if roi is None else (roi.x, roi.y)
        left, top = max(0, round(blob.left * factor)), max(0, round(blob.top * factor))
        width = max(1, round((blob.right - blob.left) * factor))
        height = max(1, round((blob.bottom - blob.top) * factor))
        return Roi(x + left, y + top, width, height)

    def _name(self, picture: Picture, blob: Blob) -> str | None:
        """Give the part's name, where the camera knows it."""
        box = self._box(blob)
        x, y = box.x + box.width / 2, box.y + box.height / 2
        for name, at in picture.parts:
            if at.x <= x < at.x + at.width and at.y <= y < at.y + at.height:
                return name
        return None if picture.parts else picture.part
