"""Writes a line's journal between the turns of its event loop: a disk that hangs does not stop the line."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from daemon.journal.journal import Journal, JournalFailed
from verdicts.verdict import Verdict

_MOST_ROWS_AT_ONCE: Final = 64
_LONGEST_CLOSE_S: Final = 5.0
_log = logging.getLogger("inspectd")

Rows = Sequence[tuple[Verdict, bytes]]
Work = Callable[[], object]


@dataclass(slots=True)
class _Note:
    """An event; where nobody waits for it, the log says when it cannot be written."""

    kind: str
    content: Mapping[str, Any]
    durable: bool
    awaited: bool = True
    error: Exception | None = None
    given_up: bool = False
    written: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Verdicts:
    """A batch of verdicts, and the turn that it belongs to."""

    rows: Rows
    turn: int


class JournalWriter:
    """Writes batches in the order in which they come. Batches that wait together are one transaction.

    SQLite waits for the disk whenever the log starts over and after a checkpoint, and a hanging disk may hold
    up any write. So verdicts are written between two turns of the event loop, which goes on without them when
    that takes long.

    A batch that takes too long is given up: its verdicts are published otherwise than they were handed over.
    When the disk answers after all, the batch is taken back, and comes again as it was published.

    The methods are called by one thread, the line's.

    Attributes:
        on_answer: called in the event loop's thread when there may be answers to be taken.
    """

    def __init__(self, journal: Journal, do: Callable[[Work, Work], None]) -> None:
        """Write nothing yet.

        Args:
            journal: from now on used by the writer alone; ``close`` closes it.
            do: does the first, which may wait for the disk, without holding up the event loop, and then the
                second in the loop's thread: ``Turns.between`` or ``Turns.beside``.
        """
        self._known = self._end = journal.end
        self.on_answer: Work = _nobody
        self.file: Path = journal.file
        self.unopened = journal.unopened
        """Why it could not be opened at first; None if it could."""
        self._journal = journal
        self._do = do
        self._jobs: deque[_Verdicts | _Note] = deque()
        self._writing = threading.Lock()  # held by the thread that writes
        self._lock = threading.Lock()
        self._turn = 0
        self._refused_turn = -1
        self._answers: deque[tuple[int, Exception | None]] = deque()  # batches, and why they are not written
        self._closed = False

    @property
    def entries(self) -> int:
        """Number of the newest row that is known to be written."""
        return self._known[0]

    @property
    def head(self) -> str:
        """Its SHA-256, 64 hexadecimal digits."""
        return self._known[1].hex()

    @property
    def trouble(self) -> str | None:
        """One line about checkpoints that fail while rows can be written; None when all is well."""
        return self._journal.trouble

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._writing.locked()

    def write(self, rows: Rows) -> None:
        """Have a batch written soon; ``answers`` tells what became of it."""
        self._jobs.append(_Verdicts(rows, self._turn))
        self._write_soon()

    def write_now(self) -> None:
        """Begin to write what waits; for the time when the event loop has no more turns."""
        if self._jobs and not self._writing.locked():
            self._beside(self._write_all)

    def answers(self) -> list[Exception | None]:
        """Take the answers since the last call: None for each batch that is written, or why it is not.

        They come in the order of the batches. If one is refused, all that were handed over before its answer
        was taken are refused, too: none may be written ahead of it.
        """
        with self._lock:
            answers = [error for batches, error in self._answers for _ in range(batches)]
            self._answers.clear()
            self._known = self._end
            if any(error is not None for error in answers):
                self._turn += 1
        if self._jobs and not self.busy:
            self._write_soon()  # they came while something else was being written
        return answers

    def give_up(self) -> bool:
        """Give up what was handed over: no answer to it is wanted any more.

        Returns:
            False when there is an answer now: take it instead.
        """
        with self._lock:
            if self._answers:
                return False
            self._turn += 1
        return True

    def note(
        self, kind: str, content: Mapping[str, Any], *, durable: bool = False, patience_s: float = 1.5
    ) -> None:
        """Write down what happened to the daemon, after all that was handed over; wait until it is written.

        Args:
            kind: such as "start".
            content: JSON.
            durable: whether to wait until the disk has it, and all before it.
            patience_s: how long to wait.

        Raises:
            JournalFailed: it is not written, or not yet.
        """
        note = _Note(kind, content, durable)
        self._jobs.append(note)
        self._beside(self._write_all)
        self._write_soon()  # what was handed over before it is written with it, and has answers
        if not note.written.wait(patience_s):
            note.given_up = True
            raise JournalFailed(f"{self.file}: the disk does not answer; not noted yet: {kind}")
        with self._lock:
            self._known = self._end
        if note.error is not None:
            raise note.error

    def note_soon(self, kind: str, content: Mapping[str, Any]) -> None:
        """Write down what happened, after all that was handed over, and go on without waiting for it."""
        self._jobs.append(_Note(kind, content, durable=False, awaited=False))
        self._write_soon()

    def close(self) -> None:
        """Write what was handed over, and close the journal; a disk that hangs is not waited for.

        Connections for reading in this process have to be closed before.
        """
        if not self._closed:
            self._closed = True
            self._beside(self._end_writing).join(_LONGEST_CLOSE_S)

    # In the thread that writes.

    def _beside(self, work: Work) -> threading.Thread:
        thread = threading.Thread(target=work, name="journal", daemon=True)
        thread.start()
        return thread

    def _write_soon(self) -> None:
        self._do(self._write_waiting, self.on_answer)

    def _write_waiting(self) -> None:
        """Write what waits now, unless another thread is about to."""
        if self._writing.acquire(blocking=False):
            try:
                for _ in range(len(self._jobs)):
                    self._write_next()
            finally:
                self._writing.release()

    def _write_all(self) -> None:
        while self._jobs:  # one that came at the very end of the writing is seen here
            with self._writing:
                while self._jobs:
                    self._write_next()

    def _end_writing(self) -> None:
        with self._writing:
            while self._jobs:
                self._write_next()
            self._journal.close()

    def _write_next(self) -> None:
        """Write the first job, and what can be written in the same transaction."""
        if not self._jobs:
            return
        job = self._jobs.popleft()
        if isinstance(job, _Note):
            self._note(job)
            return
        batches, rows = [job], len(job.rows)
        while self._jobs and rows < _MOST_ROWS_AT_ONCE:
            following = self._jobs[0]
            if not isinstance(following, _Verdicts) or following.turn != job.turn:
                break
            self._jobs.popleft()
            batches.append(following)
            rows += len(following.rows)
        self._write(batches)

    def _note(self, note: _Note) -> None:
        if note.given_up:
            return
        try:
            self._journal.note(note.kind, note.content, durable=note.durable)
        except Exception as error:
            note.error = error
            if not note.awaited:
                _log.error("journal: %s is not noted: %s", note.kind, error)
        with self._lock:
            self._end = self._journal.end
        note.written.set()

    def _write(self, batches: list[_Verdicts]) -> None:
        turn = batches[0].turn
        error: Exception | None = None
        before = self._journal.end
        if turn == self._refused_turn:
            error = JournalFailed(f"{self.file}: earlier rows are not written")
        elif turn == self._turn:
            try:
                self._journal.write([row for batch in batches for row in batch.rows])
            except Exception as failure:
                error, self._refused_turn = failure, turn
        with self._lock:
            wanted = turn == self._turn
            if wanted:
                self._end = self._journal.end
                self._answers.append((len(batches), error))
        if not wanted and error is None and self._journal.end != before:
            self._take_back(before)

    def _take_back(self, before: tuple[int, bytes]) -> None:
        while not self._closed:
            try:
                self._journal.take_back(before)
            except JournalFailed:
                time.sleep(0.1)  # until it can be, nothing else may follow
            else:
                return


def _nobody() -> None:
    """Tell nobody of answers."""
