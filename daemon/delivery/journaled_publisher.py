"""The way out of the line: a verdict is written down, and then it goes on the wire."""

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

from daemon.delivery.publisher import Publisher
from daemon.journal.journal import Journal, JournalFailed
from verdicts.message import Decision, Health, JournalHealth, Verdict, encode

_MOST_UNWRITTEN = 10_000
"""Verdicts that wait in memory for a journal that fails, about 6 MB; that older ones lack is noted in it."""
_RETRY_S = 1.0
_log = logging.getLogger("inspectd")


class Deliverer(Protocol):
    """Who delivers from the journal to the subscribers that acknowledge: the control address."""

    @property
    def dropped_messages(self) -> int:
        """What came in and was no request."""

    def journaled(self) -> None:
        """Hear that the journal has grown."""

    def health(self, topic: bytes, payload: bytes) -> None:
        """Pass a health on."""


class JournaledPublisher:
    """Journals and publishes verdicts in the order of their ``seq``.

    While the journal fails, ``on_journal_error`` decides: ``fault`` publishes every verdict as a fault with
    the reason ``journal``, so that the gate throws out what could not be written down; ``continue`` publishes
    them as they are. Both are written down as they were published when the journal works again.
    """

    def __init__(
        self,
        publisher: Publisher,
        journal: Journal | None,
        control: Deliverer | None,
        *,
        on_journal_error: Literal["fault", "continue"],
    ) -> None:
        self.on_journal_error = on_journal_error
        self.decisions: Counter[Decision] = Counter()
        """Published since the start."""
        self.faults: Counter[str] = Counter()
        """Camera to its published faults."""
        self.journal_error: str | None = None
        self._publisher = publisher
        self._journal = journal
        self._control = control
        self._unwritten: deque[tuple[Verdict, bytes]] = deque(maxlen=_MOST_UNWRITTEN)
        self._retry_at_s = 0.0

    def send(self, verdicts: Sequence[Verdict]) -> None:
        """Journal verdicts in one transaction, then publish them."""
        encoded = [(verdict, *encode(verdict)) for verdict in verdicts]
        if self._journal is not None:
            written = self._write([(verdict, payload) for verdict, _, payload in encoded])
            if not written:
                if self.on_journal_error == "fault":
                    faults = [replace(verdict, decision="fault", reason="journal") for verdict in verdicts]
                    encoded = [(verdict, *encode(verdict)) for verdict in faults]
                self._unwritten.extend((verdict, payload) for verdict, _, payload in encoded)
        self._publisher.send(*((topic, payload) for _, topic, payload in encoded))
        for verdict, _, _ in encoded:
            self.decisions[verdict.decision] += 1
            self.faults[verdict.camera] += verdict.decision == "fault"
        if self._control is not None:
            self._control.journaled()

    def send_health(self, health: Health) -> None:
        """Publish a sign of life, and try to write down what the journal refused."""
        if self._unwritten:
            self._write([])
        topic, payload = encode(health)
        self._publisher.send((topic, payload))
        if self._control is not None:
            self._control.health(topic, payload)

    def catch_up(self) -> None:
        """Try for the last time to write down what the journal refused."""
        self._retry_at_s = 0.0
        if self._unwritten and not self._write([]):
            _log.error("journal: the last %d verdicts were published and are not in it", len(self._unwritten))

    @property
    def dropped_messages(self) -> int:
        """What came in on the sockets and was no request, since the start."""
        return self._publisher.dropped_messages + (
            0 if self._control is None else self._control.dropped_messages
        )

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

    def _write(self, rows: list[tuple[Verdict, bytes]]) -> bool:
        assert self._journal is not None
        if self.journal_error is not None and time.monotonic() < self._retry_at_s:
            return False
        try:
            self._journal.write([*self._unwritten, *rows])
        except JournalFailed as error:
            if self.journal_error is None:
                _log.error("journal: %s; on_journal_error: %s", error, self.on_journal_error)
            self.journal_error = str(error)
            self._retry_at_s = time.monotonic() + _RETRY_S
            return False
        self._unwritten.clear()
        if self.journal_error is not None:
            _log.info("journal: works again")
            self.journal_error = None
        return True
