"""The way out of the line: a verdict is written into the journal, and then it goes on the wire."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from daemon.delivery.publisher import Publisher
from daemon.delivery.tally import Tally
from daemon.journal.journal import JournalFailed
from daemon.journal.writer import JournalWriter
from verdicts.health import Health, JournalHealth
from verdicts.message import encode
from verdicts.statistics import CameraStatistics, encode_statistics
from verdicts.verdict import Decision, Verdict

if TYPE_CHECKING:
    from daemon.control.server import Control

_MOST_UNWRITTEN: Final = 10_000
"""Verdicts that wait in memory while the journal fails, about 6 MB. Older ones are lost to it, and a row of
the journal says so."""
_RETRY_S: Final = 1.0
_LOOK_S: Final = 0.1
_LOOKS: Final = 15
"""A journal that does not answer during so many looks hangs. Slow disks have held a transaction up for a
second; after three seconds without health a gate stops the line. Looks are counted, not seconds: if the whole
daemon was held up, so was the journal."""
_log = logging.getLogger("inspectd")


class _Batch(NamedTuple):
    """Verdicts that are being written, as they will be published then."""

    verdicts: list[tuple[Verdict, bytes, bytes]]
    """Each with topic and payload."""
    earlier: int
    """How many of the verdicts that the journal refused before are written with them."""


class JournaledPublisher:
    """Journals and publishes verdicts in the order of their ``seq``.

    The event loop does not wait for a journal that does not answer. While the journal fails, or does not
    answer for 1.5 s, ``on_journal_error`` decides: ``fault`` publishes every verdict as a fault with the
    reason ``journal``, so that the gate throws out what could not be written down; ``continue`` publishes it
    as it is. When the journal works again, it gets these verdicts as they were published.
    """

    def __init__(
        self,
        wire: Publisher,
        journal: JournalWriter | None,
        control: "Control | None",
        *,
        on_journal_error: Literal["fault", "continue"],
    ) -> None:
        """Publish in the event loop that runs.

        Args:
            wire: which sends them to subscribers.
            journal: where they are written first; None without one.
            control: delivers them from the journal; None without one.
            on_journal_error: what becomes of verdicts that cannot be written down.
        """
        self.on_journal_error = on_journal_error
        self.decisions: Counter[Decision] = Counter()
        """Published since the start."""
        self.faults: Counter[str] = Counter()
        """Camera to its published faults."""
        self.watched: Mapping[str, CameraStatistics] = {}
        """What the cameras have seen that choose among their pictures, for the statistics."""
        self.journal_error: str | None = None
        self._tally = Tally()
        self._wire = wire
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Batch | Health] = deque()  # in the order in which they go out
        self._unwritten: deque[tuple[Verdict, bytes]] = deque(maxlen=_MOST_UNWRITTEN)
        self._retry_at_s = 0.0
        self._looks = 0
        self._look: asyncio.TimerHandle | None = None
        self._journal = journal
        if journal is not None:
            journal.on_answer = self._take_answers

    def send(self, verdicts: Sequence[Verdict]) -> None:
        """Journal verdicts in one transaction, then publish them."""
        encoded = [(verdict, *encode(verdict)) for verdict in verdicts]
        if self._journal is None:
            self._publish(encoded)
        elif self._may_write():
            self._write(self._journal, encoded)
        else:
            self._publish_unwritten(encoded)

    def send_health(self, health: Health) -> None:
        """Publish a sign of life after all verdicts that were sent, and try to write what was refused."""
        if self._unwritten and self._journal is not None and not self._waiting and self._may_write():
            self._write(self._journal, [])
        if self._waiting:
            self._waiting.append(health)  # its ``seq`` says what was published before it
        else:
            self._publish_health(health)

    def catch_up(self) -> None:
        """Wait until what was sent is published, and try for the last time to write what was refused."""
        if self._journal is None:
            return
        self._wait_for_answers()
        self._retry_at_s = 0.0
        if self._unwritten and self._may_write():
            self._write(self._journal, [])
            self._wait_for_answers()
        if self._unwritten:
            _log.error("journal: the last %d verdicts were published but are not in it", len(self._unwritten))

    def close(self) -> None:
        """Publish what was sent; nothing may be sent any more."""
        self._wait_for_answers()
        if self._look is not None:
            self._look.cancel()

    @property
    def dropped_messages(self) -> int:
        """What came in on the sockets and was no request, since the start."""
        return self._wire.dropped_messages + (0 if self._control is None else self._control.dropped_messages)

    def journal_health(self) -> JournalHealth | None:
        """Tell how the journal fares."""
        if self._journal is None:
            return None
        return JournalHealth(
            state="ok" if self.journal_error is None else "failed",
            entries=self._journal.entries,
            head=self._journal.head,
            error=self.journal_error or self._journal.trouble,
        )

    def _may_write(self) -> bool:
        """Whether the journal works, as far as is known, or may be tried again."""
        assert self._journal is not None
        if self.journal_error is None or self._waiting:
            return True
        return time.monotonic() >= self._retry_at_s and not self._journal.busy

    def _write(self, journal: JournalWriter, encoded: list[tuple[Verdict, bytes, bytes]]) -> None:
        # While batches wait, the first of them carries the unwritten ones.
        earlier = [] if self._waiting else list(self._unwritten)
        self._waiting.append(_Batch(encoded, len(earlier)))
        journal.write([*earlier, *((verdict, payload) for verdict, _, payload in encoded)])
        if self._look is None:
            self._looks = 0
            self._look = self._loop.call_later(_LOOK_S, self._look_after_journal)

    # The journal's answers.

    def _take_answers(self) -> None:
        """Publish what is written, and what cannot be, in the order in which it was sent."""
        assert self._journal is not None
        refused = False
        for error in self._journal.answers():
            self._looks = 0
            if error is not None and not isinstance(error, JournalFailed):
                raise error
            if error is not None:
                self._fail(str(error))
                refused = True
                break  # whatever was handed over after this is refused, too
            self._settle()
        if refused:
            self._give_up_waiting()
        self._publish_waiting_health()

    def _settle(self) -> None:
        """Publish the oldest batch: it is written."""
        self._publish_waiting_health()
        batch = self._waiting.popleft()
        assert isinstance(batch, _Batch)
        for _ in range(min(batch.earlier, len(self._unwritten))):
            self._unwritten.popleft()
        if self.journal_error is not None:
            _log.info("journal: works again")
            self.journal_error = None
        self._publish(batch.verdicts)

    def _look_after_journal(self) -> None:
        """Look, while something is being written, whether the journal still answers."""
        assert self._journal is not None
        self._look = None
        self._take_answers()
        if not self._waiting:
            return
        self._looks += 1
        if self._looks >= _LOOKS and self._journal.give_up():
            self._fail(f"{self._journal.file}: cannot be written: the disk does not answer")
            self._give_up_waiting()
            return
        self._look = self._loop.call_later(_LOOK_S, self._look_after_journal)

    def _wait_for_answers(self) -> None:
        """Take answers until nothing waits; for the time when the event loop has no more turns."""
        while self._waiting:
            assert self._journal is not None
            next_look_s = time.monotonic() + _LOOK_S
            while self._waiting and time.monotonic() < next_look_s:
                self._take_answers()
                self._journal.write_now()
                time.sleep(0.001)
            self._look_after_journal()

    def _fail(self, why: str) -> None:
        if self.journal_error is None:
            _log.error("journal: %s; on_journal_error: %s", why, self.on_journal_error)
        self.journal_error = why
        self._retry_at_s = time.monotonic() + _RETRY_S

    def _give_up_waiting(self) -> None:
        """Publish all that waits as unwritten."""
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if isinstance(entry, _Batch):
                self._publish_unwritten(entry.verdicts)
            else:
                self._publish_health(entry)

    # What goes out.

    def _publish_unwritten(self, encoded: list[tuple[Verdict, bytes, bytes]]) -> None:
        if self.on_journal_error == "fault":
            faults = [replace(verdict, decision="fault", reason="journal") for verdict, _, _ in encoded]
            encoded = [(verdict, *encode(verdict)) for verdict in faults]
        self._unwritten.extend((verdict, payload) for verdict, _, payload in encoded)
        self._publish(encoded)

    def _publish(self, encoded: list[tuple[Verdict, bytes, bytes]]) -> None:
        self._wire.send(*((topic, payload) for _, topic, payload in encoded))
        for verdict, _, _ in encoded:
            self.decisions[verdict.decision] += 1
            self.faults[verdict.camera] += verdict.decision == "fault"
            self._tally.count(verdict)
        if self._control is not None:
            self._control.journaled(None if self._journal is None else self._journal.entries)

    def _publish_waiting_health(self) -> None:
        while self._waiting and isinstance(self._waiting[0], Health):
            health = self._waiting.popleft()
            assert isinstance(health, Health)
            self._publish_health(health)

    def _publish_health(self, health: Health) -> None:
        # It counts the verdicts that it waited for: its ``seq`` includes them.
        counts: dict[Decision, int] = {"pass": 0, "reject": 0, "fault": 0}
        health = replace(
            health,
            verdicts=counts | self.decisions,
            cameras={
                name: replace(camera, faults=self.faults[name]) for name, camera in health.cameras.items()
            },
            journal=self.journal_health(),
        )
        topic, payload = encode(health)
        self._wire.send((topic, payload))
        if self._control is not None:
            statistics = replace(self._tally.statistics(health.boot), cameras=self.watched)
            self._control.statistics(encode_statistics(statistics))
            self._control.health(topic, payload)
        self._tally.log(health.line)
