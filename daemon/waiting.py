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
        """Add the newest frame and wake a lane."""
        with self._changed:
            self._frames.append(captured)
            self._changed.notify()

    def take(self, most: int) -> list[CapturedFrame]:
        """Wait for frames and take the oldest of them, ``most`` at the most; empty when it has ended."""
        with self._changed:
            while not self._frames and not self._ended:
                self._changed.wait()
            return [self._frames.popleft() for _ in range(min(most, len(self._frames)))]

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
