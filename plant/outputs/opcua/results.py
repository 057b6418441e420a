"""The last results: kept in memory, filled from the journal at the start, and older ones found there."""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from foundation.errors import InputError
from verdicts import MalformedMessage, Verdict
from verdicts.verdict import decode_verdict

_log = logging.getLogger(__name__)
_EVENTS: Final = 100
"""So many rows of the journal may be no verdicts."""


def id_of(verdict: Verdict) -> str:
    """Name a result for ever."""
    return f"{verdict.boot}-{verdict.seq}"


class Results:
    """Verdicts by their ids, the oldest first; used by one thread at a time."""

    def __init__(self, journal: Path | None, keep: int, decisions: Iterable[str]) -> None:
        """Prepare.

        Args:
            journal: the line's; None: only what comes is known.
            keep: so many at the most.
            decisions: which verdicts count.
        """
        self._journal = journal
        self._keep = keep
        self._decisions = frozenset(decisions)
        self._kept: OrderedDict[str, Verdict] = OrderedDict()

    def fill(self) -> None:
        """Take the newest from the journal: those that were delivered before this process was started."""
        if self._journal is None:
            return
        try:
            with JournalReader(self._journal) as reader:
                begin = max(0, reader.last_row() - self._keep - _EVENTS)
                for _, payload in reader.after(begin, self._keep + _EVENTS):
                    self.add(decode_verdict(payload))
        except (InputError, JournalFailed, MalformedMessage) as error:
            _log.warning("opcua: the last results are not known: %s", error)

    def add(self, verdict: Verdict) -> None:
        """Keep one; the oldest goes when there are too many."""
        if verdict.decision not in self._decisions:
            return
        self._kept[id_of(verdict)] = verdict
        if len(self._kept) > self._keep:
            self._kept.popitem(last=False)

    def kept(self, result: str) -> Verdict | None:
        """Find one by its id among those that are kept."""
        return self._kept.get(result)

    def in_journal(self, result: str) -> Verdict | None:
        """Find one by its id in the journal; may be called in any thread."""
        boot, _, seq = result.rpartition("-")
        if self._journal is None or not seq.isascii() or not seq.isdigit() or len(seq) > 15:
            return None
        try:
            with JournalReader(self._journal) as reader:
                payload = next(reader.verdicts(boot, int(seq), int(seq)), None)
            found = None if payload is None else decode_verdict(payload)
        except (InputError, JournalFailed, MalformedMessage) as error:
            _log.debug("opcua: %s", error)
            return None
        return found if found is not None and found.decision in self._decisions else None

    def __iter__(self) -> Iterator[Verdict]:
        return iter(list(self._kept.values()))
