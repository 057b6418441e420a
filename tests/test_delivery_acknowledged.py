import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from delivery_line import DeliveryLine
from patience import PATIENCE_S

from verdicts import (
    AcknowledgedSubscription,
    LineSilent,
    Lost,
    SubscriberReplaced,
    VerdictsLost,
    acknowledged,
)
from verdicts.request import Acknowledge, Replay, Status, decode_reply, encode_request

LineMaker = Callable[..., DeliveryLine]


@pytest.fixture
def line_maker(tmp_path: Path) -> Iterator[LineMaker]:
    started: list[DeliveryLine] = []

    def start(**options: Any) -> DeliveryLine:
        started.append(DeliveryLine(tmp_path, **options))
        return started[-1]

    yield start
    for line in started:
        if line.process.poll() is None:
            line.kill()


@pytest.fixture
def line(line_maker: LineMaker) -> DeliveryLine:
    return line_maker()


def gate(line: DeliveryLine, **options: Any) -> AcknowledgedSubscription:
    return acknowledged(
        line.control_address, **({"line": "line3", "name": "gate", "silence_s": PATIENCE_S} | options)
    )


def join(line: DeliveryLine, subscription: AcknowledgedSubscription) -> None:
    """Have it known to the line before anything is judged: it says so only while it iterates."""
    assert subscription.health is None
    while subscription.health is None:
        subscription._receive()
    line.until(lambda snapshot: subscription._name in snapshot["subscribers"])


def take(subscription: AcknowledgedSubscription, count: int) -> list[int]:
    return [next(subscription).seq for _ in range(count)]


def unacknowledged(line: DeliveryLine, name: str = "gate") -> Callable[[dict[str, Any]], int]:
    return lambda snapshot: snapshot["subscribers"][name]["unacknowledged"]


def test_every_verdict_comes_once_and_in_order(line: DeliveryLine) -> None:
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(1, 3000)
        assert take(subscription, 3000) == list(range(1, 3001))
        subscription.acknowledge(subscription._last)  # type: ignore[arg-type]
        line.until(lambda snapshot: unacknowledged(line)(snapshot) == 0)


def test_unacknowledged_verdicts_come_again_to_the_next_process_of_the_name(line: DeliveryLine) -> None:
    with gate(line, automatic=False) as first:
        join(line, first)
        line.judge(1, 20)
        verdicts = [next(first) for _ in range(20)]
        first.acknowledge(verdicts[11])
        line.until(lambda snapshot: unacknowledged(line)(snapshot) == 8)
    with gate(line, automatic=False) as second:
        assert take(second, 8) == list(range(13, 21))


@pytest.mark.parametrize("within_s", [0.05, PATIENCE_S])
def test_several_acknowledgements_are_told_at_once_in_time_or_at_the_end(
    line: DeliveryLine, within_s: float
) -> None:
    with gate(line, automatic=False, tell_within_s=within_s) as subscription:
        join(line, subscription)
        line.judge(1, 5)
        for verdict in [next(subscription) for _ in range(5)]:
            subscription.acknowledge(verdict)
        if within_s == PATIENCE_S:
            line.until(lambda snapshot: unacknowledged(line)(snapshot) == 5)
        else:
            while subscription._untold:
                subscription.take(0.01)
    line.until(lambda snapshot: unacknowledged(line)(snapshot) == 0)


def test_what_is_sent_again_does_not_reach_the_caller_twice(line: DeliveryLine) -> None:
    """The caller is slower than the line's patience, so that the line sends everything several times."""
    with gate(line, automatic=False) as subscription:
        join(line, subscription)
        line.judge(1, 5)
        verdicts = [next(subscription) for _ in range(5)]
        line.tell(do="wait", seconds=1.0)
        line.judge(6, 6)
        assert take(subscription, 1) == [6]
        subscription.acknowledge(verdicts[4])
        line.until(lambda snapshot: unacknowledged(line)(snapshot) == 1)


def test_a_killed_daemon_goes_on_where_it_was(line: DeliveryLine) -> None:
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(1, 200)
        assert take(subscription, 100) == list(range(1, 101))
        line.restart(boot="bb")
        line.judge(1, 100, boot="bb")
        received = [(verdict.boot, verdict.seq) for verdict in (next(subscription) for _ in range(200))]
    assert received == [("aa", seq) for seq in range(101, 201)] + [("bb", seq) for seq in range(1, 101)]


def test_what_was_acknowledged_is_remembered_over_an_orderly_restart(line: DeliveryLine) -> None:
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(1, 10)
        subscription.acknowledge([next(subscription) for _ in range(10)][-1])
        line.until(lambda snapshot: unacknowledged(line)(snapshot) == 0)
    assert line.stop() == 0
    line.start(boot="bb")
    line.judge(1, 1, boot="bb")
    with gate(line) as subscription:
        verdict = next(subscription)
        assert (verdict.boot, verdict.seq) == ("bb", 1)
    assert (line.folder / "journal.db-subscribers").stat().st_mode & 0o007 == 0


def test_an_orderly_end_delivers_what_is_journaled(line: DeliveryLine) -> None:
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(1, 500)
        assert line.process.stdin is not None
        line.process.stdin.close()
        assert take(subscription, 500) == list(range(1, 501))
        subscription.acknowledge(subscription._last)  # type: ignore[arg-type]
        assert line.process.wait(PATIENCE_S) == 0


def test_a_required_subscriber_that_never_came_is_absent_and_misses_nothing(line_maker: LineMaker) -> None:
    line = line_maker(required=["gate"])
    assert line.snapshot()["subscribers"]["gate"]["present"] is False
    line.judge(1, 30)
    line.until(lambda snapshot: snapshot["subscribers"]["gate"] == {"present": False, "unacknowledged": 30})
    with gate(line) as subscription:
        assert take(subscription, 30) == list(range(1, 31))
        line.until(lambda snapshot: snapshot["subscribers"]["gate"]["present"])
        assert subscription.health is not None
    line.until(lambda snapshot: not snapshot["subscribers"]["gate"]["present"])


def test_a_subscriber_that_hangs_is_absent_and_goes_on_later(line: DeliveryLine) -> None:
    script = (
        "import sys\nfrom verdicts import acknowledged\n"
        "for verdict in acknowledged(sys.argv[1], line='line3', name='gate', silence_s=30):\n"
        "    print(verdict.seq, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, line.control_address], stdout=subprocess.PIPE, text=True
    ) as hanging:
        assert hanging.stdout is not None
        line.until(lambda snapshot: snapshot["subscribers"].get("gate", {}).get("present", False))
        line.judge(1, 1)
        assert hanging.stdout.readline() == "1\n"
        os.kill(hanging.pid, signal.SIGSTOP)
        line.judge(2, 5000)
        line.until(lambda snapshot: not snapshot["subscribers"]["gate"]["present"])
        os.kill(hanging.pid, signal.SIGCONT)
        assert [int(hanging.stdout.readline()) for _ in range(4999)] == list(range(2, 5001))
        hanging.kill()


def test_the_newer_of_two_with_one_name_takes_over(line: DeliveryLine) -> None:
    with gate(line) as older, gate(line) as newer:
        join(line, older)
        join(line, newer)
        with pytest.raises(SubscriberReplaced, match="gate: another process came with this name"):
            next(older)
        line.judge(1, 3)
        assert take(newer, 3) == [1, 2, 3]
        with pytest.raises(SubscriberReplaced):
            next(older)


def test_two_names_each_get_everything_however_slow_the_other_is(line: DeliveryLine) -> None:
    with gate(line, automatic=False) as stuck, gate(line, name="archive") as quick:
        join(line, stuck)
        join(line, quick)
        line.judge(1, 3000)
        assert next(stuck).seq == 1
        assert take(quick, 3000) == list(range(1, 3001))


def test_only_what_was_asked_for_is_given_and_the_rest_is_acknowledged(line: DeliveryLine) -> None:
    with gate(line, decisions={"reject", "fault"}) as subscription:
        join(line, subscription)
        line.judge(1, 150)
        line.judge(151, 152, decision="reject")
        line.judge(153, 400)
        line.judge(401, 401, decision="fault")
        assert take(subscription, 3) == [151, 152, 401]
        subscription.acknowledge(subscription._last)  # type: ignore[arg-type]
        line.until(lambda snapshot: unacknowledged(line)(snapshot) == 0)


def test_passes_alone_are_acknowledged_while_a_gate_waits_for_rejects(line: DeliveryLine) -> None:
    with gate(line, decisions={"reject"}, silence_s=5) as subscription:
        join(line, subscription)
        line.judge(1, 2500)
        line.judge(2501, 2501, decision="reject")
        assert take(subscription, 1) == [2501]


def test_what_never_came_into_the_journal_is_lost_and_said(line: DeliveryLine) -> None:
    lost: list[Lost] = []
    with gate(line, on_lost=lost.append) as subscription:
        join(line, subscription)
        line.judge(1, 2)
        line.judge(6, 7)
        assert take(subscription, 4) == [1, 2, 6, 7]
        assert lost == [Lost("aa", 3, 5)]


def test_a_loss_is_raised_where_nobody_is_to_be_called(line: DeliveryLine) -> None:
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(1, 1)
        line.judge(3, 3)
        assert take(subscription, 1) == [1]
        with pytest.raises(VerdictsLost, match="lost 1 verdicts: 2 to 2 of boot aa"):
            next(subscription)
        assert take(subscription, 1) == [3]


def test_a_line_that_is_gone_is_silent(line: DeliveryLine) -> None:
    with gate(line, silence_s=0.5) as subscription:
        join(line, subscription)
        line.kill()
        for _ in range(2):
            with pytest.raises(LineSilent, match="line3 is silent: no health from"):
                next(subscription)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "a b"}, "name: found 'a b', expected 1 to 64"),
        ({"line": "a/b"}, "line: found 'a/b'"),
        ({"decisions": "reject"}, "decisions: found 'reject'"),
        ({"silence_s": -1}, "silence_s: found -1"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        acknowledged("tcp://127.0.0.1:1", **({"line": "line3", "name": "gate"} | options))


def test_invented_names_do_not_pile_up(line: DeliveryLine) -> None:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(line.control_address)
    refused = 0
    for number in range(200):
        socket.send(encode_request(Acknowledge(number, f"name{number}", "ab", True, None)))
        answer = None
        while answer not in {"joined", "refused"}:
            assert socket.poll(PATIENCE_S * 1000)
            answer = decode_reply(socket.recv_multipart())[0].reply
        refused += answer == "refused"
    socket.close()
    assert len(line.snapshot()["subscribers"]) == 64
    assert refused == 200 - 64


def test_a_row_that_does_not_exist_cannot_be_acknowledged(line: DeliveryLine) -> None:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(line.control_address)
    socket.send(encode_request(Acknowledge(0, "gate", "ab", True, None)))
    socket.send(encode_request(Acknowledge(0, "gate", "ab", False, 1_000_000)))
    line.until(lambda snapshot: snapshot["dropped"] == 1)
    line.judge(1, 1)
    found = {}
    while "verdicts" not in found:
        assert socket.poll(PATIENCE_S * 1000)
        reply, frames = decode_reply(socket.recv_multipart())
        found[reply.reply] = frames
    socket.close()
    assert len(found["verdicts"]) == 1


def test_who_never_reads_its_replies_costs_bounded_memory(line: DeliveryLine) -> None:
    line.judge(1, 2000, part="x" * 2000)
    before = line.snapshot()["resident_mb"]
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger, socket.rcvhwm, socket.sndhwm = 0, 1, 0
    socket.connect(line.control_address)
    for number in range(500):  # each would be answered with a megabyte
        socket.send(encode_request(Replay(number, "aa", 1, 2000)))
    socket.send(encode_request(Acknowledge(0, "stuffed", "ab", True, None)))
    with gate(line) as subscription:
        join(line, subscription)
        line.judge(2001, 2500)
        assert take(subscription, 500) == list(range(2001, 2501))
    assert line.snapshot()["resident_mb"] - before < 200
    socket.close()


def test_status_is_answered_while_others_flood(line: DeliveryLine) -> None:
    flood = (
        "import sys, zmq\nsocket = zmq.Context().socket(zmq.DEALER)\nsocket.connect(sys.argv[1])\n"
        "print('ready', flush=True)\nwhile True:\n    socket.send(b'{' * 200)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", flood, line.control_address], stdout=subprocess.PIPE, text=True
    ) as flooding:
        assert flooding.stdout is not None
        flooding.stdout.readline()
        line.until(lambda snapshot: snapshot["dropped"] > 1000)
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(line.control_address)
        for number in range(20):
            socket.send(encode_request(Status(number)))
            assert socket.poll(PATIENCE_S * 1000)
            reply, _ = decode_reply(socket.recv_multipart())
            assert (reply.reply, reply.id) == ("health", number)
        with gate(line) as subscription:
            join(line, subscription)
            line.judge(1, 500)
            assert take(subscription, 500) == list(range(1, 501))
        assert line.snapshot()["resident_mb"] < 300
        socket.close()
        flooding.kill()


def test_whoever_has_seen_a_health_gets_every_verdict_after_it(line: DeliveryLine) -> None:
    """So health must not come before the subscriber has its place in the journal."""
    with gate(line, name="other") as other:
        join(line, other)  # from here on the line has a health to tell
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(line.control_address)
    socket.send(encode_request(Acknowledge(7, "gate", "aa", join=True, row=None)))
    assert socket.poll(PATIENCE_S * 1000)
    assert decode_reply(socket.recv_multipart())[0].reply == "joined"
    socket.close()
