"""A known bad part that a person sends through the line: waits for its rejection, and notes the outcome."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from daemon.delivery.expectations import Expectations, Expected
from daemon.journal.stamps import iso
from daemon.running import Running
from foundation.errors import InputError

_MOST_EXPECTED: Final = 4
_log = logging.getLogger("inspectd")


class ExpectedDefects:
    """The bad parts that a running line is to reject. Belongs to the thread of the event loop."""

    def __init__(self, on: Running, ending: asyncio.Event) -> None:
        """Expect none yet.

        Args:
            on: what the line runs on.
            ending: set when the line ends.
        """
        self._on = on
        self._ending = ending
        self._expectations = Expectations(on.verdicts.watched_by)

    async def expect(self, camera: str | None, part: str | None, within_s: float, by: str | None) -> str:
        """Wait for a known bad part to be rejected, and note whether it was.

        Args:
            camera: which will see it; None for any.
            part: its name; None for any part.
            within_s: how long to wait, in seconds.
            by: who sends it.

        Returns:
            A line that begins with "passed" or "failed".

        Raises:
            InputError: the line has no such camera, or waits for too many parts already.
        """
        if camera is not None:
            self._on.intake.cameras.named(camera)
        if len(self._expectations) >= _MOST_EXPECTED:
            raise InputError(f"{_MOST_EXPECTED} parts are expected already; expected fewer at a time")
        asked_at = iso(datetime.now(UTC))
        expected = Expected(camera, part, asked_at)
        waiting = asyncio.create_task(self._expectations.expect(expected, within_s))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        waiting.cancel()
        found = expected.rejected
        self._on.note_soon(
            "expect",
            {
                "expected": "defect",
                "camera": camera,
                "part": part,
                "within_s": within_s,
                "by": by,
                "asked_at": asked_at,
                "product": self._on.intake.product.name,
                "outcome": "failed" if found is None else "passed",
                "seen": {decision: expected.seen[decision] for decision in ("pass", "reject", "fault")},
                "verdict": None if found is None else {"seq": found.seq, "score": found.score},
            },
        )
        if found is None:
            return self._missed(expected, within_s)
        where = f"camera {found.camera}, frame {found.frame}, score {found.score:.4g}"
        return f"passed: the defect was rejected: {where}, threshold {found.threshold:.4g}"

    def _missed(self, expected: Expected, within_s: float) -> str:
        seen = [f"{expected.seen[word]} {word}" for word in ("pass", "fault") if expected.seen[word]]
        which = "" if expected.part is None else f" of part {expected.part}"
        where = "" if expected.camera is None else f" by camera {expected.camera}"
        _log.error("%s: the expected defect was not rejected (%s)", self._on.line, ", ".join(seen) or "none")
        if self._ending.is_set():
            return f"failed: {self._on.line} is stopping before the defect was rejected"
        if not seen:
            return f"failed: no verdict{which} was given{where} within {within_s:g} s"
        return f"failed: the defect was not rejected{where} within {within_s:g} s: {', '.join(seen)}{which}"
