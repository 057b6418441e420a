"""The frames that wait for a lane, oldest first, and the pull by which a free lane makes its batch."""

import queue
import threading
import time
from collections import deque

from daemon.judging.ledger import CapturedFrame, FrameKey


class WaitingFrames:
    """A queue between the daemon's thread, which puts and withdraws, and the lanes, which take."""

    def __init__(self) -> None:
        self._frames: deque[CapturedFrame] = deque()
        self._samples: deque[CapturedFrame] = deque()
        self._lock = threading.Lock()
        # Calls a waiting lane; written in C, where a Condition waits in Python, 5,000 times per second.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, captured: CapturedFrame) -> None:
        """Add the newest frame; ``wake`` follows when this turn's are all there."""
        with self._lock:
            self._frames.append(captured)

    def wake(self) -> None:
        """Have a free lane take what was put."""
        if self._calls.empty():  # one call is enough until a lane answers it
            self._calls.put(None)

    def put_sample(self, sample: CapturedFrame) -> None:
        """Add a golden sample; a lane takes it, alone, when no frame waits."""
        with self._lock:
            self._samples.append(sample)
        self.wake()

    def withdraw_samples(self) -> None:
        """Remove the samples that no lane has taken."""
        with self._lock:
            self._samples.clear()

    def take(self, needed_ns: int = 0) -> list[CapturedFrame]:
        """Wait for frames and take the oldest of them; empty when it has ended.

        A batch holds frames of one product, at most as many as its engine takes. Frames that can no longer be
        judged before their deadline are passed over while others still can. Otherwise a lane under overload
        would spend all its time on lost frames, and take every frame just too late.

        Args:
            needed_ns: how long a batch takes to be judged.
        """
        while True:
            with self._lock:
                if self._frames:
                    return self._batch(time.monotonic_ns() + needed_ns)
                if self._samples:
                    return [self._samples.popleft()]
                if self._ended:
                    self.wake()  # the next lane
                    return []
            self._calls.get()

    def _batch(self, judged_ns: int) -> list[CapturedFrame]:
        """Take out the oldest frames that can still be judged by then."""
        lost = self._pass_over(judged_ns)
        batch: list[CapturedFrame] = []
        while self._frames and (
            not batch
            or (self._frames[0].product is batch[0].product and len(batch) < batch[0].product.max_batch)
        ):
            batch.append(self._frames.popleft())
        if self._frames:
            self.wake()  # more than one batch: the next lane
        self._frames.extendleft(reversed(lost))
        return batch

    def _pass_over(self, judged_ns: int) -> list[CapturedFrame]:
        """Take out the foremost frames with a deadline before ``judged_ns``; none if all are like that."""
        lost: list[CapturedFrame] = []
        while self._frames and self._frames[0].deadline_ns < judged_ns:
            lost.append(self._frames.popleft())
        if self._frames:
            return lost
        self._frames.extend(lost)
        return []

    def withdraw(self, key: FrameKey) -> bool:
        """Remove one frame; False when a lane has it."""
        with self._lock:
            for captured in self._frames:
                if captured.key == key:
                    self._frames.remove(captured)
                    return True
        return False

    def withdraw_oldest(self, camera: str) -> CapturedFrame | None:
        """Remove the oldest frame of a camera; None when none of its frames waits."""
        with self._lock:
            for captured in self._frames:
                if captured.key.camera == camera:
                    self._frames.remove(captured)
                    return captured
        return None

    def end(self) -> None:
        """Let the lanes finish what waits, and then end."""
        with self._lock:
            self._ended = True
        self.wake()
