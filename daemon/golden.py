"""When golden samples are judged, and what follows when one gets another verdict or score."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from calibration.golden import GoldenSample
from daemon.journal.stamps import iso
from daemon.judging.golden import PATIENCE_S, NoPause, Tested, judge_samples
from daemon.judging.product import Product
from daemon.running import Running
from foundation.errors import InputError
from verdicts.health import GoldenHealth, GoldenState

_RETRY_S: Final = 60.0
"""After so long samples that failed are judged again: what was mended is found out."""
_log = logging.getLogger("inspectd")


@dataclass(frozen=True, slots=True)
class _Result:
    state: GoldenState
    at: str
    ended_s: float
    """``time.monotonic()``."""
    failed: tuple[str, ...] = ()
    """What is wrong, one line for each sample that failed."""
    error: str | None = None


class Golden:
    """The golden samples of a running line. Belongs to the thread of the event loop."""

    def __init__(self, running: Running, ending: asyncio.Event) -> None:
        self._on = running
        self._ending = ending
        self._turn = asyncio.Lock()
        self._results: dict[Product, _Result] = {}
        self._due: asyncio.Task[object] | None = None

    async def test(self, samples: Mapping[Product, Sequence[GoldenSample]], why: str) -> list[str]:
        """Have the lanes judge the samples of products, between two parts, and note the outcome.

        Args:
            samples: what is judged; of each product.
            why: what it is done for, such as "start"; for the journal.

        Returns:
            What is wrong, one line each; empty when all passed.

        Raises:
            InputError: the line ends meanwhile.
        """
        trouble: list[str] = []
        async with self._turn:
            for product, own in samples.items():
                result = await self._test_one(product, own, why)
                trouble += [result.error] if result.error is not None and not result.failed else result.failed
        return trouble

    async def _test_one(self, product: Product, samples: Sequence[GoldenSample], why: str) -> _Result:
        began = datetime.now(UTC)
        judging = asyncio.create_task(judge_samples(self._on.waiting, product, samples))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((judging, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not judging.done():
            judging.cancel()
            raise InputError(f"{self._on.line} is stopping")
        tested: list[Tested] = []
        try:
            tested = judging.result()
            failed = tuple(one.trouble for one in tested if one.trouble is not None)
            state: GoldenState = "failed" if failed else "passed"
            error = f"{len(failed)} of {len(tested)} golden samples: {failed[0]}" if failed else None
        except NoPause:
            failed, state = (), "overdue"
            error = f"golden samples were not judged: parts left no pause for {PATIENCE_S:g} s"
        result = _Result(state, iso(datetime.now(UTC)), time.monotonic(), failed, error)
        self._results[product] = result
        self._withhold()
        self._on.note_soon(
            "golden",
            {
                "why": why,
                "product": product.name,
                "engine": product.engine_name,
                "began_at": iso(began),
                "outcome": state,
                "withheld": product in self._on.verdicts.withheld,
                "samples": [_noted(one) for one in tested],
            },
        )
        named = "" if product.name is None else f" of product {product.name}"
        if error is None:
            _log.info("%s: all %d golden samples%s passed (%s)", self._on.line, len(tested), named, why)
        else:
            held = "; no part is released" if product in self._on.verdicts.withheld else ""
            _log.error("%s: golden%s: %s (%s)%s", self._on.line, named, error, why, held)
        return result

    def _is_due(self, result: _Result) -> bool:
        section = self._on.setup.config.golden
        every_s = 3600 * section.every_h if section is not None else float("inf")
        after_s = every_s if result.state == "passed" else min(every_s, _RETRY_S)
        return time.monotonic() >= result.ended_s + after_s

    def _withhold(self) -> None:
        section = self._on.setup.config.golden
        stops = section is not None and section.on_failure == "stop"
        # What is overdue shows nothing new: what the last run that ended has shown holds.
        held = {product for product, result in self._results.items() if result.state == "failed"}
        held |= {
            product
            for product in self._on.verdicts.withheld
            if product in self._results and self._results[product].state == "overdue"
        }
        self._on.verdicts.withheld = frozenset(held) if stops else frozenset()

    def changed_over(self) -> None:
        """Forget the products that are gone; after a reload."""
        kept = self._on.setup.golden
        self._results = {product: result for product, result in self._results.items() if product in kept}
        self._withhold()

    def test_what_is_due(self) -> None:
        """Begin a run of the product's samples when its time has come; to be called every second."""
        if self._turn.locked():
            return
        product = self._on.intake.product
        result = self._results.get(product)
        if product in self._on.setup.golden and (result is None or self._is_due(result)):
            self._due = asyncio.create_task(self._test_quietly(product, "due"))

    async def _test_quietly(self, product: Product, why: str) -> None:
        with suppress(InputError):  # the line ends
            await self.test(self.of([product]), why)

    def of(self, products: Iterable[Product]) -> dict[Product, Sequence[GoldenSample]]:
        """Give the samples of some products."""
        golden = self._on.setup.golden
        return {product: golden[product] for product in products if product in golden}

    async def selftest(self) -> str:
        """Judge the samples of the product now.

        Returns:
            A line that begins with "passed" or "failed".

        Raises:
            InputError: there are none, or the line ends.
        """
        product = self._on.intake.product
        samples = self.of([product])
        if not samples:
            raise InputError(
                f"{self._on.path}: golden: found no such section, expected golden: {{every_h: 4}}, and "
                "samples that inspectctl golden add wrote"
            )
        trouble = await self.test(samples, "selftest")
        if trouble:
            return "failed: " + "; ".join(trouble)
        return f"passed: all {len(samples[product])} golden samples, engine {product.engine_name}"

    def health(self) -> GoldenHealth | None:
        """Tell what the samples of the product say; None where the config asks for none."""
        product = self._on.intake.product
        samples = self._on.setup.golden.get(product)
        if samples is None:
            return None
        result = self._results.get(product)
        if result is None:
            return GoldenHealth("untested", None, len(samples), 0, False, None)
        withheld = product in self._on.verdicts.withheld
        return GoldenHealth(result.state, result.at, len(samples), len(result.failed), withheld, result.error)


def _noted(tested: Tested) -> dict[str, object]:
    sample = tested.sample
    return {
        "file": sample.name,
        "expected": sample.expected,
        "expected_score": sample.score,
        "allowed": sample.allowed,
        "score": tested.score,
        "trouble": tested.trouble,
    }
