"""Known bad parts that a person sends through the line: whether it rejects them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from verdicts.verdict import Decision, Verdict


@dataclass(eq=False)
class Expected:
    """A bad part on its way.

    Attributes:
        camera: which will see it; None for any.
        part: its name; None for any part.
        since: when it was announced, as verdicts write times; a part without a name that was captured before
            is not the one.
        rejected: its verdict, once it was rejected; None when it was not.
        seen: the decisions on the parts that it may have been.
    """

    camera: str | None
    part: str | None
    since: str
    rejected: Verdict | None = None
    seen: Counter[Decision] = field(default_factory=Counter)
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self, verdict: Verdict) -> None:
        """Look whether a verdict is the one that is expected."""
        if self.decided.is_set():
            return
        if self.camera not in {None, verdict.camera} or self.part not in {None, verdict.part}:
            return
        if self.part is None and verdict.captured_at < self.since:
            return
        self.seen[verdict.decision] += 1
        if verdict.decision == "reject":
            self.rejected = verdict
        # Another camera may still see what one has missed; a part with a name comes by a camera once.
        if self.rejected is not None or (self.part is not None and self.camera is not None):
            self.decided.set()


class Expectations:
    """The bad parts on their way; costs the line nothing while there are none."""

    def __init__(self, watch: Callable[[Callable[[Sequence[Verdict]], object] | None], object]) -> None:
        """Begin with none.

        Args:
            watch: has verdicts shown to a function from now on; None to end that.
        """
        self._watch = watch
        self._open: list[Expected] = []

    def __len__(self) -> int:
        return len(self._open)

    async def expect(self, expected: Expected, within_s: float) -> None:
        """Wait until a part was rejected, or must have been."""
        self._open.append(expected)
        self._watch(self._look)
        try:
            await asyncio.wait_for(expected.decided.wait(), within_s)
        except TimeoutError:
            pass
        finally:
            self._open.remove(expected)
            if not self._open:
                self._watch(None)

    def _look(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            for expected in self._open:
                expected.look(verdict)
