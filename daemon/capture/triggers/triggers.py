"""One trigger, one verdict: pairs triggers with the pictures nearest in time."""

import threading
from collections import deque
from typing import Final, NamedTuple

from daemon.capture.choice import Missed, Outcome, Taken
from daemon.capture.drivers import Picture, Trigger
from daemon.capture.link import Watch

_REMEMBERED: Final = 4  # pictures: a trigger may be heard of later than the picture after it


class _Pending(NamedTuple):
    at_ns: int
    """When its part is in view."""
    part: str | None
    number: int | None


class _Seen:
    """A picture that came lately."""

    def __init__(self, picture: Picture, captured_ns: int) -> None:
        self.picture = picture
        self.captured_ns = captured_ns
        self.used = False


class Triggers:
    """Takes for each trigger the picture nearest in time; used by several threads.

    What has no picture in time, and what comes too soon after the trigger before, is `Missed`.
    """

    def __init__(self, trigger: Trigger, now_ns: int) -> None:
        """Wait for the first trigger.

        Args:
            trigger: from the config.
            now_ns: the present time, as ``time.monotonic_ns()``.
        """
        self._trigger = trigger
        self._lock = threading.Lock()
        self._pending: deque[_Pending] = deque()
        self._doubles: list[Missed] = []
        self._seen: deque[_Seen] = deque(maxlen=_REMEMBERED)
        self._last_ns: int | None = None
        self._heard_ns = now_ns
        self._silent = False
        self._pictures = self._parts = self._missed = self._triggers = self._double = 0
        self._trouble: str | None = None
        self._untold: str | None = None

    @property
    def waits(self) -> bool:
        """Whether a trigger has no picture yet."""
        with self._lock:
            return bool(self._pending or self._doubles)

    def fire(self, at_ns: int, part: str | None = None, number: int | None = None) -> None:
        """Take a trigger.

        Args:
            at_ns: when it came, as ``time.monotonic_ns()``.
            part: name of the part that it announces.
            number: by which the daemon knows it.
        """
        with self._lock:
            self._triggers += 1
            self._heard_ns = max(self._heard_ns, at_ns)
            self._silent = False
            double = self._too_soon(at_ns)
            if double is not None:
                self._doubles.append(Missed(double, part, at_ns, number))
                return
            self._pending.append(_Pending(at_ns + int(self._trigger.delay_ms * 1e6), part, number))

    def tell(self, trouble: str | None) -> None:
        """Note what keeps triggers from coming; None: nothing does."""
        with self._lock:
            if trouble is not None and self._trouble is None:
                self._untold = trouble
            self._trouble = trouble

    def look(self, picture: Picture, captured_ns: int) -> list[Outcome]:
        with self._lock:
            self._pictures += 1
            if self._trigger.by == "hardware":
                return self._triggered_by_itself(picture, captured_ns)
            self._seen.append(_Seen(picture, captured_ns))
            outcomes: list[Outcome] = list(self._take_doubles())
            waiting: deque[_Pending] = deque()
            for pending in self._pending:
                if pending.at_ns > captured_ns:
                    waiting.append(pending)  # the next picture may be nearer
                else:
                    outcomes.append(self._nearest(pending))
            self._pending = waiting
            return outcomes + self._silence(captured_ns)

    def overdue(self, now_ns: int) -> list[Outcome]:
        """Give up triggers for which no picture came in time; for a camera that is silent."""
        with self._lock:
            outcomes: list[Outcome] = list(self._take_doubles())
            limit_ns = now_ns - 2 * int(self._trigger.window_ms * 1e6)
            while self._pending and self._pending[0].at_ns < limit_ns:
                outcomes.append(self._without(self._pending.popleft()))
            return outcomes + self._silence(now_ns)

    def finish(self, now_ns: int) -> list[Outcome]:
        with self._lock:
            outcomes: list[Outcome] = list(self._take_doubles())
            outcomes += [self._nearest(pending) for pending in self._pending]
            self._pending.clear()
            return outcomes

    def watch(self) -> Watch:
        with self._lock:
            return Watch(
                pictures=self._pictures,
                empty=self._pictures - self._parts,
                parts=self._parts,
                missed=self._missed,
                triggers=self._triggers,
                doubles=self._double,
                speed=None,
                trouble=self._trouble or (self._silence_text() if self._silent else None),
            )

    def _too_soon(self, at_ns: int) -> str | None:
        """Say why a trigger is the one before once more; None when it is one of its own."""
        before_ns, self._last_ns = self._last_ns, at_ns
        if before_ns is None or abs(at_ns - before_ns) >= self._trigger.apart_ms * 1e6:
            return None
        self._double += 1
        apart_ms = abs(at_ns - before_ns) / 1e6
        return (
            f"a double trigger: {apart_ms:.1f} ms after the one before; expected at least apart_ms "
            f"{self._trigger.apart_ms:g}"
        )

    def _triggered_by_itself(self, picture: Picture, captured_ns: int) -> list[Outcome]:
        """Take a picture of a camera that is triggered by wire: each picture is a trigger."""
        self._triggers += 1
        self._heard_ns, self._silent = captured_ns, False
        double = self._too_soon(captured_ns if picture.device_ns is None else picture.device_ns)
        if double is not None:
            return [Missed(double, picture.part, captured_ns)]
        self._parts += 1
        return [Taken(picture, picture.part, captured_ns)]

    def _take_doubles(self) -> list[Missed]:
        doubles, self._doubles = self._doubles, []
        return doubles

    def _nearest(self, pending: _Pending) -> Outcome:
        window_ns = self._trigger.window_ms * 1e6
        near = [
            seen
            for seen in self._seen
            if not seen.used and abs(seen.captured_ns - pending.at_ns) <= window_ns
        ]
        if not near:
            return self._without(pending)
        chosen = min(near, key=lambda seen: abs(seen.captured_ns - pending.at_ns))
        chosen.used = True
        self._parts += 1
        part = chosen.picture.part if pending.part is None else pending.part
        return Taken(chosen.picture, part, chosen.captured_ns, pending.number)

    def _without(self, pending: _Pending) -> Missed:
        self._missed += 1
        error = (
            f"a trigger without a picture: the camera took none within window_ms {self._trigger.window_ms:g}"
        )
        at_ns = pending.at_ns - int(self._trigger.delay_ms * 1e6)
        return Missed(error, pending.part, at_ns, pending.number)

    def _silence(self, now_ns: int) -> list[Outcome]:
        """Tell once that triggers cannot come, or that none has come for too long."""
        if self._untold is not None:
            untold, self._untold = self._untold, None
            return [Missed(untold, None, now_ns)]
        after_s = self._trigger.silent_after_s
        if after_s is None or self._silent or now_ns - self._heard_ns < after_s * 1e9:
            return []
        self._silent = True
        self._missed += 1
        return [Missed(self._silence_text(), None, now_ns)]

    def _silence_text(self) -> str:
        return f"no trigger for {self._trigger.silent_after_s:g} s"
