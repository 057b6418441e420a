"""The seam of what chooses among a free-running camera's pictures: by presence, or by triggers."""

from typing import NamedTuple, Protocol

from daemon.capture.drivers import Picture
from daemon.capture.link import Watch


class Taken(NamedTuple):
    """A picture that is judged."""

    picture: Picture
    part: str | None
    captured_ns: int
    trigger: int | None = None
    """Number of the daemon's trigger that it answers."""


class Missed(NamedTuple):
    """A fault in place of a picture: a part, or a trigger, that has none."""

    error: str
    part: str | None
    captured_ns: int
    trigger: int | None = None


Outcome = Taken | Missed


class Choice(Protocol):
    """Chooses the pictures that are judged; all others have no verdict."""

    def look(self, picture: Picture, captured_ns: int) -> list[Outcome]:
        """Take the next picture; give what is decided now.

        Args:
            picture: of the camera.
            captured_ns: when it was captured, as ``time.monotonic_ns()``.
        """
        ...

    def finish(self, now_ns: int) -> list[Outcome]:
        """Decide about everything that is open, when no more pictures come."""
        ...

    def watch(self) -> Watch:
        """Tell what was seen so far."""
        ...
