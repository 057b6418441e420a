"""Golden samples on their way through a lane: they wait until no part does, and get no verdict."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from calibration.golden import GoldenSample
from daemon.judging.lane import Judged, NotJudged
from daemon.judging.ledger import CapturedFrame, FrameKey
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from pictures.frames import Frame, Size

PATIENCE_S = 60.0
"""So long a sample waits for a pause between two parts. A line without any has none to spare for it."""


class NoPause(Exception):
    """No sample was judged for ``PATIENCE_S``: parts came without a pause."""


class Tested(NamedTuple):
    """What became of one sample."""

    sample: GoldenSample
    score: float | None
    """None when the engine failed."""
    trouble: str | None
    """One line; None when it passed."""


class _Samples:
    """A ``FrameSource`` of pictures that lie in memory."""

    picture_size: Size | None = None

    def __init__(self, samples: Sequence[GoldenSample]) -> None:
        self.slots: Sequence[Frame] = [sample.frame for sample in samples]
        self.judged: asyncio.Queue[Judged | NotJudged] = asyncio.Queue()

    def free(self, slot: int) -> None:
        """Nothing waits for the room of a sample."""


def take_sample(result: Judged | NotJudged) -> bool:
    """Take a lane's result if it is that of a golden sample; called in the event loop's thread."""
    source = result.frames[0].source
    if not isinstance(source, _Samples):
        return False
    source.judged.put_nowait(result)
    return True


async def judge_samples(
    waiting: WaitingFrames, product: Product, samples: Sequence[GoldenSample]
) -> list[Tested]:
    """Have the running lanes judge samples, one at a time, each when no part waits.

    Raises:
        NoPause: parts came without a pause.
    """
    source = _Samples(samples)
    tested = []
    for slot, sample in enumerate(samples):
        now_ns = time.monotonic_ns()
        never_ns = now_ns + int(10 * PATIENCE_S * 1e9)
        waiting.put_sample(
            CapturedFrame(FrameKey("-", slot), product, source, slot, now_ns, never_ns, None, None)
        )
        try:
            result = await asyncio.wait_for(source.judged.get(), PATIENCE_S)
        except TimeoutError:
            raise NoPause from None
        finally:
            waiting.withdraw_samples()
        tested.append(_tested(sample, result, product.threshold))
    return tested


def _tested(sample: GoldenSample, result: Judged | NotJudged, threshold: float) -> Tested:
    if isinstance(result, NotJudged):
        return Tested(sample, None, f"{sample.name}: could not be judged: {result.error}")
    score = float(result.scores[0])
    return Tested(sample, score, sample.trouble(score, threshold))
