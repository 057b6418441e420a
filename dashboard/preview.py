"""The small picture of each camera: the line's own preview, or the last that the archive kept."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dashboard.database import DatabaseFailed
from dashboard.kept_pictures import NoPicture, jpeg, look_at, path_of, read
from dashboard.records import Shown, microseconds
from dashboard.watch import LineWatch
from foundation.errors import printable

_OLD_MS: Final = 3000.0
_MOST_JSON: Final = 10_000
_MOST_JPEG: Final = 2_000_000
_LEASE: Final = "lease"
_LEASE_EVERY_S: Final = 1.0
_SIDE: Final = 480


@dataclass(frozen=True)
class Preview:
    """What is shown of a camera, and where it is."""

    content: dict[str, Any]
    path: Path | None = None
    archived: bool = False


class Previews:
    """The previews of one line."""

    def __init__(self, watch: LineWatch) -> None:
        self._watch = watch
        self._leased_s = -_LEASE_EVERY_S
        self._archived: dict[str, tuple[int, Preview]] = {}
        """Of each camera: the row of its last archived verdict, and what was found there."""

    def lease(self) -> None:
        """Tell the line that somebody looks; at most once a second. Without a folder nothing happens."""
        folder = self._watch.line.preview
        if folder is None or time.monotonic() - self._leased_s < _LEASE_EVERY_S:
            return
        self._leased_s = time.monotonic()
        try:
            # The file may be the line's own, and only be written by our group.
            lease = os.open(folder / _LEASE, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        except OSError:
            return  # the line is not there, or lets nobody look
        try:
            os.utime(lease)
        except OSError:
            pass
        finally:
            os.close(lease)

    def of(self, camera: str) -> Preview:
        """Find what is to be shown of a camera."""
        found = self._live(camera)
        return found if found is not None else self._from_archive(camera)

    def jpeg(self, camera: str) -> bytes:
        """Give the picture.

        Raises:
            NoPicture: there is none.
        """
        found = self.of(camera)
        if found.path is None:
            reason = found.content["reason"]
            raise NoPicture(reason["code"], reason["detail"])
        if found.archived:
            from dashboard.kept_pictures import decoded

            return jpeg(decoded(found.path), _SIDE)
        return read(found.path)

    def _live(self, camera: str) -> Preview | None:
        folder = self._watch.line.preview
        if folder is None:
            return None
        picture = folder / f"{camera}.jpg"
        try:
            with picture.open("rb") as file:
                found = os.fstat(file.fileno())
                head = file.read(_MOST_JSON)
            if found.st_size > _MOST_JPEG:
                return None
            content = json.loads(_comment(head))
            changed_ns = found.st_mtime_ns
            at = microseconds(content["captured_at"]) / 1000
            score, boot, seq = content.get("score"), content.get("boot"), content.get("seq")
            age_ms = max(0.0, time.time() * 1000 - at)
            return Preview(
                {
                    "source": "live",
                    "url": self._url(camera, changed_ns),
                    "kind": _text(content.get("kind")),
                    "score": float(score) if isinstance(score, int | float) else None,
                    "id": f"{boot}-{seq}" if isinstance(boot, str) and isinstance(seq, int) else None,
                    "at": at,
                    "age_ms": age_ms,
                    "old": age_ms > max(_OLD_MS, 5000 * self._watch.listening.pace_s.get(camera, 0)),
                    "width": _size(content.get("width")),
                    "height": _size(content.get("height")),
                    "reason": None,
                },
                picture,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # not there yet, or just being replaced

    def _from_archive(self, camera: str) -> Preview:
        rollup = self._watch.rollup
        if rollup is None:
            return _none(NoPicture("no_picture_yet"))
        try:
            newest = rollup.rows(
                "camera = ? AND archive IS NOT NULL ORDER BY row DESC LIMIT 1", rollup.id_of(camera)
            )
        except DatabaseFailed as error:
            return _none(NoPicture("no_picture_yet", str(error)))
        if not newest:
            return _none(NoPicture("no_picture_yet"))
        row, known = self._archived.get(camera, (0, None))
        if known is None or row != newest[0].row or known.path is None:
            known = self._found(camera, newest[0])
            self._archived[camera] = newest[0].row, known
        age_ms = max(0.0, time.time() * 1000 - newest[0].at_us / 1000)
        return Preview({**known.content, "age_ms": age_ms}, known.path, archived=True)

    def _found(self, camera: str, verdict: Shown) -> Preview:
        try:
            picture = look_at(path_of(verdict, self._watch.line.archive, "frame"))
        except NoPicture as error:
            return _none(error)
        content = {
            "source": "archive",
            "url": self._url(camera, verdict.row),
            "kind": verdict.decision,
            "score": verdict.score,
            "id": verdict.id,
            "at": verdict.at_us / 1000,
            "age_ms": 0.0,
            "old": True,
            "width": picture.width,
            "height": picture.height,
            "reason": None,
        }
        return Preview(content, picture.path, archived=True)

    def _url(self, camera: str, version: int) -> str:
        return f"/api/lines/{self._watch.line.name}/cameras/{camera}/preview.jpg?v={version:x}"


def _none(reason: NoPicture) -> Preview:
    keys = ("url", "kind", "score", "id", "at", "age_ms", "width", "height")
    return Preview({"source": "none", **dict.fromkeys(keys), "old": True, "reason": reason.content()})


def _comment(head: bytes) -> bytes:
    """Give the comment with which a line's preview begins: what it says of itself (docs/preview.md).

    The file beside it says the same, and may for a moment belong to the picture before.
    """
    if head[:4] != b"\xff\xd8\xff\xfe":
        raise ValueError("no JPEG with a comment in front")
    return head[6 : 4 + int.from_bytes(head[4:6])]


def _text(found: object) -> str | None:
    return printable(found)[:80] if isinstance(found, str) else None


def _size(found: object) -> int | None:
    return found if type(found) is int and 0 < found < 100_000 else None
