"""A lane: one thread with an engine of each product, which pulls whatever waits."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.host.scheduling import give_way
from daemon.judging.ledger import CapturedFrame
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from daemon.judging.score_parts import score_parts
from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine
from foundation.errors import EngineAway, EngineFailed, InputError
from pictures.mask import weigh

_log = logging.getLogger("inspectd")

_BATCHES = 16
_OUTLIERS = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """What a lane found out about a batch; times are ``time.monotonic_ns()``.

    Row i of ``scores`` (N), ``anomaly_maps`` (N×h×w) and ``score_parts`` (N×K, where the product asks for
    them) belongs to ``frames[i]``.
    """

    lane: "Lane"
    frames: Sequence[CapturedFrame]
    started_ns: int
    finished_ns: int
    scores: NDArray[np.float32]
    anomaly_maps: NDArray[np.float32]
    score_parts: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class NotJudged:
    """A batch on which the engine failed."""

    lane: "Lane"
    frames: Sequence[CapturedFrame]
    error: str


@dataclass(frozen=True, slots=True)
class Work:
    """The batch that a lane works on, since ``time.monotonic_ns()``."""

    frames: Sequence[CapturedFrame]
    since_ns: int
    opening: bool = False
    """Whether the engine is being opened again for it, which takes longer than any batch."""


class Lane(threading.Thread):
    """Judges batches until nothing waits any more, and opens an engine again when it fails.

    After three failures in a row it gives up: a broken device does not heal by trying, and a line that
    rejects everything is better stopped.
    """

    MOST_FAILURES = 3

    def __init__(
        self,
        engines: Mapping[Product, Engine],
        *,
        wanted: Collection[Product],
        waiting: WaitingFrames,
        deliver: Callable[[Judged | NotJudged], None],
        failures: int = 0,
    ) -> None:
        """Make a lane; ``start`` starts it.

        Args:
            engines: opened, and owned by the lane from now on. The engine of a missing product is opened with
                the product's first frame.
            wanted: the line's products; their engines stay open.
            waiting: where batches are pulled from.
            deliver: called in the lane's thread with each result.
            failures: how often in a row the lane before this one has failed, if this one replaces it.
        """
        super().__init__(name="lane", daemon=True)  # a device that hangs must not keep the process alive
        self.failures = failures
        """How often in a row it has failed."""
        self.work: Work | None = None
        """What it is at; None while it waits."""
        self.trouble: str | None = None
        """What is wrong with its engine although that judges; as of the last batch."""
        self._engines = dict(engines)
        self._wanted = frozenset(wanted)
        self._arriving: queue.SimpleQueue[tuple[frozenset[Product], Mapping[Product, Engine]]]
        self._arriving = queue.SimpleQueue()
        self.abandoned = False
        """Whether it hung and was replaced; what it still delivers is ignored."""
        self._took_ns = deque([0] * _BATCHES, maxlen=_BATCHES)
        self._waiting = waiting
        self._deliver = deliver

    @property
    def given_up(self) -> bool:
        """Whether it has failed too often to go on."""
        return self.failures >= self.MOST_FAILURES

    def adopt(self, wanted: Collection[Product], opened: Mapping[Product, Engine]) -> None:
        """Hand over the engines of a new config; the lane takes them up between two batches.

        Args:
            wanted: all products of the new config. Engines of other products are closed. If frames of such a
                product still wait, its engine is opened once more for them.
            opened: the engines of those that are new.
        """
        self._arriving.put((frozenset(wanted), opened))

    def abandon(self) -> None:
        """Let a lane that hangs end by itself if it ever comes back; no thread can be killed."""
        self.abandoned = True

    def run(self) -> None:
        give_way()
        while not (self.given_up or self.abandoned) and (
            frames := self._waiting.take(needed_ns(self._took_ns))
        ):
            self.work = Work(frames, time.monotonic_ns())
            result = self._judged(frames)
            self.work = None
            if isinstance(result, Judged):
                self._took_ns.append(result.finished_ns - result.started_ns)
            self._deliver(result)
        for product in list(self._engines):
            self._close(product)

    def _judged(self, frames: Sequence[CapturedFrame]) -> Judged | NotJudged:
        try:
            self._take_up_adopted(frames[0].product)
            result = self._judge(frames)
        except EngineAway as error:
            # The engine asks again by itself; to open it anew, or to give the line up, would help nobody.
            self._note_trouble(frames[0].product)
            return NotJudged(self, frames, str(error))
        except Exception as error:  # whatever a driver raises, the frames must get their verdict
            self.failures += 1
            _log.error("the engine failed (%d in a row): %s", self.failures, error)
            self._close(frames[0].product)
            return NotJudged(self, frames, str(error))
        self.failures = 0
        self._note_trouble(frames[0].product)
        return result

    def _note_trouble(self, product: Product) -> None:
        engine = self._engines.get(product)
        trouble = None if engine is None else engine.trouble
        if trouble != self.trouble:
            _log.warning("engine: %s", trouble or "all servers answer again")
        self.trouble = trouble

    def _judge(self, frames: Sequence[CapturedFrame]) -> Judged:
        product = frames[0].product
        engine = self._engines.get(product)
        if engine is None:
            engine = self._open(frames)
        started_ns = time.monotonic_ns()
        pixels = [frame.pixels for frame in frames if frame.pixels is not None]
        fetched = tuple(product.manifest.maps.values()) if product.score_parts else ()
        outputs = engine.infer(pixels, product.quantiles, (SCORE, ANOMALY_MAP, *fetched))
        scores, maps = outputs[SCORE], outputs[ANOMALY_MAP]
        if product.weights is not None:
            scores, maps = weigh(maps, product.weights)
        if not np.isfinite(scores).all():
            raise EngineFailed("the engine gave a score that is not a number")
        parts = None
        if fetched:
            parts = score_parts([outputs[name] for name in fetched], maps, product.quantiles, product.weights)
        return Judged(self, frames, started_ns, time.monotonic_ns(), scores, maps, parts)

    def _open(self, frames: Sequence[CapturedFrame]) -> Engine:
        """Open the engine for frames that wait for it."""
        product = frames[0].product
        self.work = Work(frames, time.monotonic_ns(), opening=True)
        try:
            engine = self._engines[product] = product.open()
        except InputError as error:
            raise EngineFailed(str(error)) from error
        self.work = Work(frames, time.monotonic_ns())
        return engine

    def _take_up_adopted(self, needed: Product) -> None:
        while not self._arriving.empty():
            self._wanted, opened = self._arriving.get()
            self._engines |= opened
        for product in self._engines.keys() - self._wanted - {needed}:
            self._close(product)

    def _close(self, product: Product) -> None:
        engine = self._engines.pop(product, None)
        if engine is not None:
            product.close(engine)


def needed_ns(took_ns: Collection[int]) -> int:
    """Estimate how long the next batch takes, from how long the last ones took.

    The two longest are left out if they took more than twice as long as the third: the machine may have held
    everything up, and a lane must not take frames for lost because of it. Smaller variation counts: under
    overload there are always other frames to judge instead of one that may be just too late.
    """
    usual = sorted(took_ns)[-1 - _OUTLIERS]
    return max(took for took in took_ns if took <= 2 * usual)
