"""Where the belt is now, and where it was when a part was captured."""

from typing import Final, Protocol

from plant.gate.counters import BeltFailed, Counter
from plant.gate.track import Track

_LOOKED_AWAY_S: Final = 0.1


class Position(Protocol):
    """The belt's position, in the unit in which the way to the gate is given."""

    def now(self, now_s: float) -> float:
        """Give the position of this moment.

        Raises:
            BeltFailed: it is not known, or it jumped; what was captured before this moment is lost sight of.
        """
        ...

    def at(self, moment_s: float) -> float | None:
        """Give the position of a moment that is past; None where it is not known."""
        ...

    def since(self, position: float) -> float | None:
        """Give a moment before which nothing was captured that is still on its way; None: nothing is."""
        ...

    def known_from(self) -> float:
        """Give the moment before which positions are not known."""
        ...

    def close(self) -> None:
        """Let go of the encoder."""
        ...


class SteadyPosition:
    """A belt that always runs with one speed: 1 where the way is given in seconds."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._known_from_s = float("-inf")

    def now(self, now_s: float) -> float:
        return now_s * self.speed

    def at(self, moment_s: float) -> float | None:
        return moment_s * self.speed

    def since(self, position: float) -> float | None:
        return position / self.speed

    def known_from(self) -> float:
        return self._known_from_s

    def close(self) -> None:
        pass


class CountedPosition:
    """The count of an encoder, without end where the encoder begins anew after so many bits."""

    def __init__(
        self, counter: Counter, track: Track, *, way: float, bits: int | None, fastest: float | None
    ) -> None:
        """Go on where the process before stopped, if the encoder has counted on.

        Args:
            counter: of the encoder.
            track: where the belt was.
            way: from the camera to the furthest gate, in pulses.
            bits: after which the counter begins anew.
            fastest: pulses per second; None: what is more than the way at once is a jump.
        """
        self._counter = counter
        self._track = track
        self._way = way
        self._span = None if bits is None else 2.0**bits
        self._fastest = fastest
        self._known = track.newest
        self._failed = not counter.outlives and self._known is not None

    def now(self, now_s: float) -> float:
        try:
            raw = self._counter.read()
        except BeltFailed:
            self._failed = True
            raise
        if self._known is None:
            self._known = (now_s, 0.0, raw)
            self._track.distrust(now_s)
        known_s, position, known_raw = self._known
        moved = raw - known_raw
        if self._span is not None:
            moved = (moved + self._span / 2) % self._span - self._span / 2
        jumped = abs(moved) > self._most(now_s - known_s)
        lost = self._failed and (not self._counter.outlives or now_s - known_s > _LOOKED_AWAY_S)
        self._failed = False
        if jumped or lost:
            self._known = (now_s, position, raw)
            self._track.distrust(now_s)
            self._track.note(now_s, position, raw)
            raise BeltFailed(
                f"the encoder jumped by {moved:g} pulses in {now_s - known_s:.3f} s" if jumped
                else "the encoder was away"
            )  # fmt: skip
        self._known = (now_s, position + moved, raw)
        self._track.note(now_s, position + moved, raw)
        return position + moved

    def at(self, moment_s: float) -> float | None:
        return self._track.at(moment_s)

    def since(self, position: float) -> float | None:
        return self._track.since(position)

    def known_from(self) -> float:
        return self._track.known_from_s

    def close(self) -> None:
        self._counter.close()

    def _most(self, elapsed_s: float) -> float:
        """Give how far the belt may have moved meanwhile."""
        if self._fastest is None:
            return self._way * max(1.0, elapsed_s / _LOOKED_AWAY_S)
        return self._fastest * elapsed_s * 1.1 + max(2.0, self._fastest * 0.002)
