"""The writer of a journal: what is given up is taken back, and nothing is written ahead of it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from line_process import a_verdict
from patience import PATIENCE_S

from daemon.journal.audit import audit
from daemon.journal.chain import UNJOURNALED
from daemon.journal.journal import Journal, JournalFailed
from daemon.journal.reader import JournalReader
from daemon.journal.writer import JournalWriter
from verdicts import Verdict, encode
from verdicts.verdict import decode_verdict


class Rig:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "line3.journal"
        self.journal = Journal(self.file, line="line3", keep_days=30, max_mb=10)
        self.writer = JournalWriter(self.journal, self.between_turns)
        self.answered = threading.Semaphore(0)
        self.writer.on_answer = self.answered.release

    def between_turns(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """As when the disk holds each turn up, so that the loop always goes on in the other thread."""

        def held_up() -> None:
            work()
            then()

        threading.Thread(target=held_up).start()

    def write(self, *verdicts: Verdict) -> None:
        self.writer.write([(verdict, encode(verdict)[1]) for verdict in verdicts])

    def answers(self, count: int) -> list[Exception | None]:
        answers: list[Exception | None] = []
        while len(answers) < count:
            assert self.answered.acquire(timeout=PATIENCE_S)
            answers += self.writer.answers()
        return answers

    def journaled(self) -> list[Verdict]:
        with JournalReader(self.file) as reader:
            return [decode_verdict(payload) for _, payload in reader.after(0, 1000)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.writer.close()


def test_batches_are_written_in_order_and_answered_one_by_one(rig: Rig) -> None:
    for seq in range(1, 51):
        rig.write(a_verdict(seq))
    assert rig.answers(50) == [None] * 50
    assert [verdict.seq for verdict in rig.journaled()] == list(range(1, 51))
    assert (rig.writer.entries, rig.writer.head) == (rig.journal.entries, rig.journal.head)


def test_what_was_given_up_is_taken_back_and_comes_again_as_it_was_published(rig: Rig) -> None:
    """As when a checkpoint holds the lock while the disk hangs."""
    rig.write(a_verdict(1))
    assert rig.answers(1) == [None]
    fault = replace(a_verdict(2), decision="fault", reason="journal")
    with rig.journal._turn:  # the disk hangs under a checkpoint
        rig.write(a_verdict(2))
        while not rig.writer.busy:
            pass
        assert rig.writer.give_up()
        assert rig.writer.busy
    rig.write(fault, a_verdict(3))
    assert rig.answers(1) == [None]
    assert rig.journaled() == [a_verdict(1), fault, a_verdict(3)]
    assert audit(rig.file, expected_head=rig.writer.head).intact


def test_events_of_a_transaction_that_is_taken_back_stay(rig: Rig) -> None:
    rig.write(a_verdict(1))
    rig.answers(1)
    with rig.journal._turn:
        rig.write(a_verdict(5))  # an event says that 2 to 4 were never written
        while not rig.writer.busy:
            pass
        assert rig.writer.give_up()
    rig.write(a_verdict(5, decision="fault", reason="journal"))
    assert rig.answers(1) == [None]
    with JournalReader(rig.file) as reader:
        kinds = [row.kind for row in reader.rows(0, 100)]
    assert kinds.count(UNJOURNALED) >= 1
    assert [verdict.decision for verdict in rig.journaled()][-1] == "fault"
    assert audit(rig.file).intact


def test_nothing_is_written_ahead_of_what_was_refused(rig: Rig) -> None:
    with rig.journal._turn:
        rig.write(a_verdict(1))
        while not rig.writer.busy:
            pass
        for seq in range(2, 100):
            rig.write(a_verdict(seq))
        rig.file.unlink()
    answers = rig.answers(1)
    assert isinstance(answers[0], JournalFailed)
    assert all(isinstance(error, JournalFailed) for error in answers)
    rig.write(*(a_verdict(seq) for seq in range(1, 101)))
    while None not in rig.answers(1):
        pass
    assert [verdict.seq for verdict in rig.journaled()] == list(range(1, 101))


def test_a_note_that_the_disk_does_not_answer_is_not_waited_for(rig: Rig) -> None:
    with rig.journal._turn, pytest.raises(JournalFailed, match="the disk does not answer"):
        rig.writer.note("reload", {"boot": "aa"}, patience_s=0.05)
    rig.writer.note("reload", {"boot": "aa"}, durable=True, patience_s=10)


def test_a_durable_journal_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "line3.journal", line="line3", keep_days=30, max_mb=10, durable=True)
    journal.write([(a_verdict(1), encode(a_verdict(1))[1])])
    assert journal._connection is not None
    assert journal._connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    journal.note("start", {"boot": "aa"}, durable=True)
    assert journal._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    journal.close()
