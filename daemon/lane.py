"""A lane: one engine on one thread that pulls whatever waits."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.ledger import CapturedFrame
from daemon.slots import FrameSlots
from daemon.waiting import WaitingFrames
from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine, Quantiles
from engine_runtime.errors import EngineFailed, InputError

_log = logging.getLogger("inspectd")


@dataclass(frozen=True, slots=True)
class Judged:
    """What a lane found out about a batch; times are ``time.monotonic_ns()``.

    Row i of ``scores`` (N) and ``anomaly_maps`` (N×h×w) belongs to ``frames[i]``.
    """

    frames: Sequence[CapturedFrame]
    started_ns: int
    finished_ns: int
    scores: NDArray[np.float32]
    anomaly_maps: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NotJudged:
    """A batch on which the engine failed; ``given_up`` when the lane ends because of it."""

    frames: Sequence[CapturedFrame]
    error: str
    given_up: bool


class Lane(threading.Thread):
    """Judges batches until nothing waits any more, and opens its engine anew when it fails.

    After three failures in a row it gives up: a broken device does not heal by trying, and a line that
    rejects everything is better stopped.
    """

    MOST_FAILURES = 3

    def __init__(
        self,
        engine: Engine,
        reopen: Callable[[], Engine],
        *,
        quantiles: Quantiles,
        max_batch: int,
        waiting: WaitingFrames,
        slots: Mapping[str, FrameSlots],
        deliver: Callable[[Judged | NotJudged], None],
    ) -> None:
        """Make a lane; ``start`` starts it.

        Args:
            engine: opened, and owned by the lane from now on.
            reopen: opens the same engine again.
            quantiles: 2×2 float32, from the calibration.
            max_batch: frames per batch at the most.
            waiting: where batches are pulled from.
            slots: camera name to its slots.
            deliver: called in the lane's thread with each result.
        """
        super().__init__(name="lane", daemon=True)  # a device that hangs must not keep the process alive
        self._engine: Engine | None = engine
        self._reopen = reopen
        self._quantiles = quantiles
        self._max_batch = max_batch
        self._waiting = waiting
        self._slots = slots
        self._deliver = deliver

    def run(self) -> None:
        failures = 0
        while failures < self.MOST_FAILURES and (frames := self._waiting.take(self._max_batch)):
            try:
                self._deliver(self._judge(frames))
                failures = 0
            except Exception as error:  # whatever a driver raises, the frames must get their verdict
                failures += 1
                _log.error("the engine failed (%d in a row): %s", failures, error)
                self._drop_engine()
                self._deliver(NotJudged(frames, str(error), failures == self.MOST_FAILURES))
        self._drop_engine()

    def _judge(self, frames: Sequence[CapturedFrame]) -> Judged:
        if self._engine is None:
            try:
                self._engine = self._reopen()
            except InputError as error:
                raise EngineFailed(str(error)) from error
        started_ns = time.monotonic_ns()
        pixels = [self._slots[frame.key.camera][frame.slot] for frame in frames if frame.slot is not None]
        outputs = self._engine.infer(pixels, self._quantiles, (SCORE, ANOMALY_MAP))
        scores = outputs[SCORE]
        if not np.isfinite(scores).all():
            raise EngineFailed("the engine gave a score that is not a number")
        return Judged(frames, started_ns, time.monotonic_ns(), scores, outputs[ANOMALY_MAP])

    def _drop_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
