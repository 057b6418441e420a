"""The frames that wait for a lane, oldest first, and the pull by which a free lane makes its batch."""

import threading
from collections import deque

from daemon.ledger import CapturedFrame, FrameKey


class WaitingFrames:
    """A queue between the daemon's thread, which puts and withdraws, and the lanes, which take."""

    def __init__(self) -> None:
        self._frames: deque[CapturedFrame] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, captured: CapturedFrame) -> None:
        """Add the newest frame; ``wake`` follows when this turn's are all there."""
        with self._changed:
            self._frames.append(captured)

    def wake(self) -> None:
        """Have a free lane take what was put."""
        with self._changed:
            self._changed.notify()

    def take(self) -> list[CapturedFrame]:
        """Wait for frames and take the oldest of them; empty when it has ended.

        A batch is of one product, and no larger than its engine takes.
        """
        with self._changed:
            while not self._frames and not self._ended:
                self._changed.wait()
            batch: list[CapturedFrame] = []
            while self._frames and (
                not batch
                or (self._frames[0].product is batch[0].product and len(batch) < batch[0].product.max_batch)
            ):
                batch.append(self._frames.popleft())
            if self._frames:
                self._changed.notify()  # more than one batch: the next lane
            return batch

    def withdraw(self, key: FrameKey) -> bool:
        """Remove one frame; False when a lane has it."""
        with self._changed:
            for captured in self._frames:
                if captured.key == key:
                    self._frames.remove(captured)
                    return True
        return False

    def withdraw_oldest(self, camera: str) -> CapturedFrame | None:
        """Remove the oldest frame of a camera; None when none of its frames waits."""
        with self._changed:
            for captured in self._frames:
                if captured.key.camera == camera:
                    self._frames.remove(captured)
                    return captured
        return None

    def end(self) -> None:
        """Let the lanes finish what waits and then get nothing more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
