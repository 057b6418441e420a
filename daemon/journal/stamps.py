import time
from datetime import UTC, datetime, timedelta
from typing import Final

STEP: Final = timedelta(seconds=1)
"""A clock that moves by more than this against the monotonic one was set; less is steered time."""


class Stamps:
    """The times at which rows are written. They never descend, except at steps of the clock, which are noted.

    So a journal can be searched by time between two steps.
    """

    def __init__(self, last: datetime | None) -> None:
        """Go on from the time of the newest row."""
        self._last = last
        self._offset_ns: int | None = None

    def now(self) -> tuple[datetime, timedelta | None]:
        """Give the time, and by how much the clock was set since the last call, None when it was not."""
        wall_ns, offset_ns = time.time_ns(), time.time_ns() - time.monotonic_ns()
        wall = datetime.fromtimestamp(wall_ns // 1000 / 1e6, UTC)
        step: timedelta | None = None
        if self._offset_ns is not None:
            step = timedelta(microseconds=(offset_ns - self._offset_ns) / 1000)
        elif self._last is not None and wall < self._last:
            step = wall - self._last  # set while no daemon ran; forwards would look like a pause
        self._offset_ns = offset_ns
        if step is None or abs(step) <= STEP:
            wall = wall if self._last is None else max(wall, self._last)
            step = None
        self._last = wall
        return wall, step


def iso(moment: datetime) -> str:
    """Write a UTC time as verdicts do, with microseconds; the texts sort as the times do."""
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
