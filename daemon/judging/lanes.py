"""All lanes of a line: the ones that hang are replaced."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from daemon.judging.lane import Judged, Lane, NotJudged, Work
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from engine_runtime.engine import Engine
from engine_runtime.trial import OPENING_TIMEOUT_S

_log = logging.getLogger("inspectd")


class Lanes:
    """Starts lanes and finds those that hang. Used by the daemon's thread only."""

    def __init__(
        self,
        engines: Sequence[Mapping[Product, Engine]],
        *,
        waiting: WaitingFrames,
        deliver: Callable[[Judged | NotJudged], None],
    ) -> None:
        """Make a lane for each set of opened engines; ``deliver`` is called in the lanes' threads."""
        self._waiting = waiting
        self._deliver = deliver
        self._wanted = frozenset[Product]().union(*engines)
        self._lanes = [
            Lane(opened, wanted=self._wanted, waiting=waiting, deliver=deliver) for opened in engines
        ]
        self.hung = False
        """Whether a thread hangs in a runtime; only the end of the process ends it."""

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def failing(self) -> bool:
        """Whether the last batch of one of them failed."""
        return any(lane.failures for lane in self._lanes)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the servers that judge for them; None where nothing is, or there are none."""
        return next((lane.trouble for lane in self._lanes if lane.trouble), None)

    def start(self) -> None:
        """Start all of them."""
        for lane in self._lanes:
            lane.start()

    def adopt(self, wanted: Collection[Product], opened: Sequence[Mapping[Product, Engine]]) -> None:
        """Hand each lane the engines of a new config, as ``Lane.adopt`` takes them."""
        self._wanted = frozenset(wanted)  # lanes that replace others need it, too
        for lane, engines in zip(self._lanes, opened, strict=True):
            lane.adopt(wanted, engines)

    def replace_hung(self, patience_s: float) -> list[NotJudged]:
        """Replace each lane that has been busy with one batch for longer than ``patience_s``.

        Opening an engine again may take as long as at the start: a GPU compiles all it runs.

        Returns:
            The batches of the hung lanes. Those lanes are ``abandoned``: what they still deliver is ignored.
        """
        results: list[NotJudged] = []
        for index, lane in enumerate(self._lanes):
            work: Work | None = lane.work
            if work is None:
                continue
            limit_s = OPENING_TIMEOUT_S if work.opening else patience_s
            if time.monotonic_ns() - work.since_ns < limit_s * 1e9:
                continue
            error = f"the engine has hung for {limit_s:g} s" + (", being opened" if work.opening else "")
            _log.error("%s (%d in a row)", error, lane.failures + 1)
            lane.abandon()
            self.hung = True
            # It opens its engine with its first batch; if that hangs as well, it is noticed in the same way.
            successor = Lane(
                {},
                wanted=self._wanted,
                waiting=self._waiting,
                deliver=self._deliver,
                failures=lane.failures + 1,
            )
            successor.start()
            self._lanes[index] = successor
            results.append(NotJudged(successor, work.frames, error))
        return results

    def join(self, patience_s: float) -> None:
        """Wait for the ends of those that do not hang."""
        give_up_s = time.monotonic() + patience_s
        for lane in self._lanes:
            if lane.is_alive():
                lane.join(max(0.0, give_up_s - time.monotonic()))
            self.hung |= lane.is_alive()
