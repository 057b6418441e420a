"""Where an acknowledging subscriber goes on when the journal does not have what it acknowledged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from delivery_line import DeliveryLine
from line_process import a_verdict
from patience import PATIENCE_S

from daemon.journal.chain import POWER_CUT
from daemon.journal.journal import Journal
from verdicts import AcknowledgedSubscription, VerdictsLost, acknowledged, encode
from verdicts.request import REPEATED, Acknowledge, encode_request

LineMaker = Callable[..., DeliveryLine]
REPLY_KEYS = {"schema", "reply", "id", "frames", "next", "rows", "kept_from", "text"}


def gate(line: DeliveryLine, **options: Any) -> AcknowledgedSubscription:
    return acknowledged(
        line.control_address, **({"line": "line3", "name": "gate", "silence_s": 10} | options)
    )


def joined(line: DeliveryLine, **options: Any) -> AcknowledgedSubscription:
    subscription = gate(line, **options)
    while subscription.health is None:
        subscription._receive()
    line.until(lambda snapshot: "gate" in snapshot["subscribers"])
    return subscription


def take(subscription: AcknowledgedSubscription, count: int) -> list[int]:
    return [next(subscription).seq for _ in range(count)]


def positions(line: DeliveryLine) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((line.folder / "journal.db-subscribers").read_text())
    return content


def acknowledge_all(line: DeliveryLine, first: int, last: int) -> None:
    """Have the gate see these verdicts and acknowledge them, and its place be kept."""
    with joined(line) as subscription:
        line.judge(first, last)
        assert take(subscription, last - first + 1) == list(range(first, last + 1))
        subscription.acknowledge(subscription._last)  # type: ignore[arg-type]
        line.until(lambda snapshot: snapshot["subscribers"]["gate"]["unacknowledged"] == 0)


def kept_journal(line: DeliveryLine) -> dict[Path, bytes]:
    """The journal as a disk has it that takes nothing any more."""
    files = [line.journal, line.journal.with_name("journal.db-wal")]
    return {file: file.read_bytes() for file in files if file.exists()}


def cut_power(line: DeliveryLine, kept: dict[Path, bytes]) -> None:
    """Kill the line, and leave of its journal what the disk has."""
    line.stop()  # so that the positions are written
    for file in line.folder.glob("journal.db*"):
        if not file.name.endswith("-subscribers"):
            file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)


def test_a_place_beyond_the_end_of_the_journal_gets_what_is_new_and_not_all_of_it(line: DeliveryLine) -> None:
    acknowledge_all(line, 1, 30)
    kept = kept_journal(line)
    acknowledge_all(line, 31, 60)
    cut_power(line, kept)
    line.start(boot="bb")
    with joined(line) as subscription:
        line.judge(1, 5)
        assert take(subscription, 5) == [1, 2, 3, 4, 5]
        assert {verdict.boot for verdict in [subscription._last] if verdict} == {"bb"}


def test_other_rows_under_the_numbers_of_lost_ones_are_not_taken_for_acknowledged(line: DeliveryLine) -> None:
    acknowledge_all(line, 1, 30)
    kept = kept_journal(line)
    acknowledge_all(line, 31, 60)
    cut_power(line, kept)
    # A start whose control address nobody reached: it has put other rows in the place of the lost ones.
    journal = Journal(line.journal, line="line3", keep_days=90, max_mb=1000)
    journal.note(POWER_CUT, {"boot": "aa", "last": 30})
    verdicts = [a_verdict(seq, boot="bb") for seq in range(1, 101)]
    journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
    journal.close()
    line.start(boot="cc")
    with joined(line) as subscription:
        assert take(subscription, 100) == list(range(1, 101))
        line.judge(1, 5)
        assert take(subscription, 5) == [1, 2, 3, 4, 5]


def test_another_journal_in_its_place_does_not_go_to_the_gate_as_a_whole(
    line: DeliveryLine, tmp_path: Path
) -> None:
    acknowledge_all(line, 1, 10)
    line.stop()
    other = tmp_path / "other"
    other.mkdir()
    journal = Journal(other / "journal.db", line="line3", keep_days=90, max_mb=1000)
    verdicts = [a_verdict(seq, boot="dd") for seq in range(1, 501)]
    journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
    journal.close()
    for file in line.folder.glob("journal.db*"):
        if not file.name.endswith("-subscribers"):
            file.unlink()
    shutil.copy(other / "journal.db", line.journal)
    line.start(boot="bb")
    with joined(line) as subscription:
        line.judge(1, 3)
        verdict = next(subscription)
        assert (verdict.boot, verdict.seq) == ("bb", 1)


@pytest.mark.parametrize(("row", "expected"), [(21, 21), (1_000_000, 31)])
def test_positions_without_hashes_as_older_versions_wrote_them_go_on(
    line: DeliveryLine, row: int, expected: int
) -> None:
    acknowledge_all(line, 1, 30)
    line.stop()
    file = line.folder / "journal.db-subscribers"
    file.write_text(json.dumps({"version": 1, "acknowledged": {"gate": row}}, indent=1))
    line.start()
    with joined(line) as subscription:
        line.judge(31, 40)
        assert take(subscription, 3) == [expected, expected + 1, expected + 2]
    line.until(lambda snapshot: snapshot["subscribers"]["gate"]["unacknowledged"] < 41 - expected)
    line.stop()
    content = positions(line)
    assert content["version"] == 1 and set(content) == {"version", "acknowledged", "sha256"}


def test_what_may_have_been_given_before_is_marked_and_what_is_new_is_not(line: DeliveryLine) -> None:
    first = joined(line, automatic=False)
    line.judge(1, 20)
    marks = []
    for _ in range(20):
        verdict = next(first)
        marks.append(first.repeated)
        if verdict.seq == 5:
            first.acknowledge(verdict)
    assert not any(marks)
    line.until(lambda snapshot: snapshot["subscribers"]["gate"]["unacknowledged"] == 15)
    first._socket.close()
    with gate(line) as second:
        seen = {next(second).seq: second.repeated for _ in range(15)}
        assert seen == dict.fromkeys(range(6, 21), True)
        line.judge(21, 40)
        assert {next(second).seq: second.repeated for _ in range(20)} == dict.fromkeys(range(21, 41), False)
        second.acknowledge(second._last)  # type: ignore[arg-type]
    line.restart()
    with joined(line) as third:
        line.judge(41, 45)
        seen = {}
        while 45 not in seen:
            verdict = next(third)
            seen[verdict.seq] = third.repeated
    assert {seq: mark for seq, mark in seen.items() if seq > 40} == dict.fromkeys(range(41, 46), False)
    assert all(mark for seq, mark in seen.items() if seq <= 40)


def test_the_mark_stands_where_older_subscribers_read_a_reply_too(line: DeliveryLine) -> None:
    """Their decoder refuses unknown keys."""
    line.judge(1, 1)
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(line.control_address)
    socket.send(encode_request(Acknowledge(0, "gate", "ab", True, None)))
    texts: list[str | None] = []
    line.until(lambda snapshot: "gate" in snapshot["subscribers"])
    line.judge(2, 2)
    while len(texts) < 2:  # the second time because nothing acknowledged it
        assert socket.poll(PATIENCE_S * 1000)
        reply = json.loads(socket.recv_multipart()[0])
        assert reply.keys() == REPLY_KEYS
        if reply["reply"] == "verdicts":
            texts.append(reply["text"])
    socket.close()
    assert texts == [None, REPEATED]


def test_numbers_that_a_power_cut_left_out_are_a_loss_to_the_gate(line: DeliveryLine) -> None:
    acknowledge_all(line, 1, 30)
    with joined(line) as subscription:
        line.judge(31, 31)
        assert take(subscription, 1) == [31]
        # As the next start numbers what the last one left unjudged.
        line.judge(1_000_032, 1_000_032)
        with pytest.raises(VerdictsLost) as loss:
            next(subscription)
        assert (loss.value.first, loss.value.last) == (32, 1_000_031)
        assert next(subscription).seq == 1_000_032
