"""The book in which every captured frame is entered once and closed once."""

import heapq
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from daemon.judging.product import Product
from pictures.frames import Frame, Roi, Size
from pictures.view import Matrix


class FrameKey(NamedTuple):
    """One captured frame: its camera and the number the camera process gave it."""

    camera: str
    frame: int


class Slots(Protocol):
    """Where frames lie until they are judged."""

    def __getitem__(self, slot: int) -> Frame:
        """Give a view of a slot's frame, H×W×3 or tiles×H×W×3 uint8 BGR."""


class FrameSource(Protocol):
    """The camera over all its processes, which owns the slots."""

    @property
    def slots(self) -> Slots:
        """The slots of its frames."""

    @property
    def picture_size(self) -> Size | None:
        """Of the camera's pictures; None when it is not known or not the same for all."""

    def free(self, slot: int) -> None:
        """Let the camera write into a slot again."""


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """A frame between its capture and its verdict.

    Times are ``time.monotonic_ns()``. ``product`` is what was judged when it was captured. ``slot`` is None
    when its pixels were never stored; otherwise ``region`` is what they show of the camera's picture. Where
    the part was brought to its place first, the region lies in the reference's picture, and ``placed`` takes
    a point of that to the camera's. ``lost`` says that the part was not found, and the frame is to be
    rejected.
    """

    key: FrameKey
    product: Product
    source: FrameSource
    slot: int | None
    captured_ns: int
    deadline_ns: int
    part: str | None
    region: Roi | None
    placed: Matrix | None = None
    lost: bool = False

    @property
    def pixels(self) -> Frame | None:
        """A view of its pixels, H×W×3 or tiles×H×W×3 uint8 BGR, that holds until ``free``."""
        return None if self.slot is None else self.source.slots[self.slot]

    def free(self) -> None:
        """Give its slot back to the camera."""
        if self.slot is not None:
            self.source.free(self.slot)


class Ledger:
    """Holds the frames that have no verdict yet.

    ``close`` hands a frame out exactly once, to whoever asks first: the lane that judged it, its deadline, a
    dead camera or the shutdown. Whoever comes later finds it closed. Used by one thread only.
    """

    def __init__(self) -> None:
        self._open: dict[FrameKey, CapturedFrame] = {}
        self._deadlines: list[tuple[int, FrameKey]] = []

    def __len__(self) -> int:
        return len(self._open)

    def open(self, captured: CapturedFrame) -> None:
        """Enter a captured frame.

        Raises:
            ValueError: the frame is in the book already.
        """
        if captured.key in self._open:
            raise ValueError(f"frame {captured.key.frame} of camera {captured.key.camera} is open already")
        self._open[captured.key] = captured
        heapq.heappush(self._deadlines, (captured.deadline_ns, captured.key))

    def close(self, key: FrameKey) -> CapturedFrame | None:
        """Take a frame out for its verdict; None when it got its verdict before."""
        captured = self._open.pop(key, None)
        # Thousands of deadlines that will never fire would cost every garbage collection milliseconds.
        while self._deadlines and self._deadlines[0][1] not in self._open:
            heapq.heappop(self._deadlines)
        return captured

    def next_deadline_ns(self) -> int | None:
        """Give the earliest deadline of the open frames; None when there are none."""
        return self._deadlines[0][0] if self._deadlines else None

    def overdue(self, now_ns: int) -> list[FrameKey]:
        """List the open frames whose deadline has come, earliest first."""
        keys: list[FrameKey] = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            _, key = heapq.heappop(self._deadlines)
            if key in self._open:
                keys.append(key)
        return keys

    def open_keys(self) -> list[FrameKey]:
        """List the open frames in the order of their capture."""
        return list(self._open)
