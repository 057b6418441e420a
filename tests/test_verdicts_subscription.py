import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from line_process import LineProcess, a_health, a_verdict
from patience import PATIENCE_S

from verdicts import Health, LineSilent, Lost, Verdict, VerdictsLost, encode, read_health, subscribe
from verdicts.checks import MAX_BYTES
from verdicts.subscription import Subscription

LineMaker = Callable[..., LineProcess]


@pytest.fixture
def line_process() -> Iterator[LineMaker]:
    started: list[LineProcess] = []

    def start(**options: int) -> LineProcess:
        started.append(LineProcess(**options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def line(line_process: LineMaker) -> LineProcess:
    return line_process()


def joined(line: LineProcess, **options: Any) -> Subscription:
    subscription = subscribe(line.address, line="line3", **options)
    line.wait_for_subscriber()
    return subscription


@contextmanager
def published_again_and_again(line: LineProcess, *messages: Health | Verdict) -> Iterator[None]:
    """For a subscriber that is about to connect, and says so to libzmq only while it iterates."""

    def publish() -> None:
        while not done.wait(0.05):
            line.publish(*messages)

    done = threading.Event()
    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def next_but_silence(subscription: Subscription) -> Verdict:
    while True:
        with suppress(LineSilent):
            return next(subscription)


def take(subscription: Subscription, count: int) -> list[int]:
    return [next_but_silence(subscription).seq for _ in range(count)]


def test_what_has_come_is_taken_without_waiting_and_select_tells_of_news(line: LineProcess) -> None:
    with joined(line, silence_s=PATIENCE_S) as subscription:
        assert subscription.take(0) is None
        line.publish(*(a_verdict(seq) for seq in range(1, 31)), a_health(seq=30))
        taken: list[int] = []
        while len(taken) < 30:
            assert select.select([subscription], [], [], PATIENCE_S)[0]
            while (verdict := subscription.take(0)) is not None:
                taken.append(verdict.seq)
        assert taken == list(range(1, 31))
        line.publish(a_verdict(31))
        last = subscription.take(PATIENCE_S)
        assert last is not None and last.seq == 31


def test_verdicts_come_as_they_were_sent(line: LineProcess) -> None:
    sent = [a_verdict(1), a_verdict(2, decision="reject", part="scratch"), a_verdict(3, decision="fault")]
    with joined(line) as subscription:
        line.publish(*sent)
        assert [next(subscription) for _ in sent] == sent


def test_only_what_was_asked_for(line: LineProcess) -> None:
    with joined(line, cameras={"side"}, decisions={"reject", "fault"}) as subscription:
        line.publish(
            a_verdict(1),
            a_verdict(2, decision="reject"),
            a_verdict(3, decision="reject", camera="side"),
            a_health(3, line="line30"),
            a_verdict(1, line="line30", decision="reject", camera="side"),
            a_verdict(4, camera="side"),
            a_verdict(5, decision="fault", camera="side"),
        )
        assert take(subscription, 2) == [3, 5]
        assert subscription.health is None


def test_a_gap_among_verdicts_nobody_asked_for_is_noticed(line: LineProcess) -> None:
    with joined(line, decisions={"reject"}) as subscription:
        line.publish(*(a_verdict(seq) for seq in (7, 8, 11)), a_verdict(12, decision="reject"))
        with pytest.raises(VerdictsLost) as loss:
            next(subscription)
        assert (loss.value.first, loss.value.last, loss.value.boot) == (9, 10, "aa")
        assert take(subscription, 1) == [12]


def test_the_verdict_behind_a_gap_is_kept(line: LineProcess) -> None:
    with joined(line) as subscription:
        line.publish(*(a_verdict(seq) for seq in (1, 3, 3, 2, 4)))
        assert take(subscription, 1) == [1]
        with pytest.raises(VerdictsLost, match="lost 1 verdicts: 2 to 2 of boot aa"):
            next(subscription)
        assert take(subscription, 2) == [3, 4]


def test_health_shows_that_the_last_verdicts_were_lost(line: LineProcess) -> None:
    lost: list[Lost] = []
    with joined(line, on_lost=lost.append) as subscription:
        line.publish(a_verdict(1), a_health(4), a_verdict(5))
        assert take(subscription, 2) == [1, 5]
        assert lost == [Lost("aa", 2, 4)]
        assert subscription.health == a_health(4)


def test_malformed_messages_are_dropped_and_counted(line: LineProcess) -> None:
    topic, payload = encode(a_verdict(2))
    with joined(line) as subscription:
        line.publish(
            a_verdict(1),
            (topic,),
            (topic, payload, b""),
            (topic, b"{}"),
            (b"line3/top/fault", payload),
            a_verdict(2),
        )
        assert take(subscription, 2) == [1, 2]
        assert subscription.malformed == 4


def test_an_oversized_message_is_dropped_and_the_connection_stays(line: LineProcess) -> None:
    with joined(line) as subscription:
        line.publish(a_verdict(1), (b"line3/top/pass", b" " * MAX_BYTES + b"{}"), a_verdict(2))
        assert take(subscription, 2) == [1, 2]
        assert subscription.malformed == 1


def test_a_killed_daemon_is_silent_and_its_next_boot_is_joined(line_process: LineMaker) -> None:
    killed = line_process()
    with joined(killed, silence_s=0.4) as subscription:
        killed.publish(a_health(0), a_verdict(1))
        assert take(subscription, 1) == [1]
        killed.kill()
        with pytest.raises(LineSilent) as silence:
            next(subscription)
        told_s = time.monotonic()
        with pytest.raises(LineSilent):
            next(subscription)
        assert time.monotonic() - told_s > 0.3
        assert silence.value.health == a_health(0)

        restarted = line_process(port=killed.port)
        with published_again_and_again(restarted, a_verdict(3, boot="bb"), a_health(3, boot="bb")):
            with pytest.raises(VerdictsLost, match="lost 2 verdicts: 1 to 2 of boot bb"):
                next_but_silence(subscription)
            assert next(subscription) == a_verdict(3, boot="bb")


def test_a_stranger_on_the_port_does_not_deafen_for_ever(line_process: LineMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        subscription = subscribe(f"tcp://127.0.0.1:{port}", line="line3", silence_s=0.4)
        connection, _ = stranger.accept()
        with connection:
            connection.sendall(b"\xff" * 500)
            for _ in range(2):
                with pytest.raises(LineSilent):
                    next(subscription)
    with subscription:
        line = line_process(port=port)
        with published_again_and_again(line, a_health(0), a_verdict(1)):
            assert next_but_silence(subscription) == a_verdict(1)


def test_a_hung_daemon_is_silent_until_it_goes_on(line: LineProcess) -> None:
    with joined(line, silence_s=0.4) as subscription:
        line.publish(a_health(0))
        line.process.send_signal(signal.SIGSTOP)
        with pytest.raises(LineSilent):
            next(subscription)
        line.process.send_signal(signal.SIGCONT)
        line.publish(a_health(0), a_verdict(1))
        assert take(subscription, 1) == [1]


def test_a_daemon_that_was_never_there_is_silent(line: LineProcess) -> None:
    line.kill()
    with subscribe(line.address, line="line3", silence_s=0.2) as subscription:
        for times in (1, 2):
            with pytest.raises(
                LineSilent, match=r"line3 is silent: no health from tcp://127.0.0.1:\d+ for"
            ) as silence:
                next(subscription)
            assert silence.value.silent_s >= times * 0.2 - 0.01
            assert silence.value.health is None


def test_verdicts_do_not_stand_in_for_health(line: LineProcess) -> None:
    with joined(line, silence_s=0.4) as subscription, pytest.raises(LineSilent):
        for seq in range(1, 1_000_000):
            line.publish(a_verdict(seq))
            next(subscription)


def test_health_alone_is_life(line: LineProcess) -> None:
    """On a line without parts nothing but health comes, and health is enough."""

    def publish() -> None:
        for _ in range(25):
            line.publish(a_health(0))
            never.wait(0.1)
        line.publish(a_verdict(1, decision="reject"))

    never = threading.Event()
    with joined(line, decisions={"reject"}, silence_s=2) as subscription:
        started = time.monotonic()
        daemon = threading.Thread(target=publish)
        daemon.start()
        assert next(subscription).seq == 1
        assert time.monotonic() - started > 2
        daemon.join()


def test_an_orderly_end_is_silence_too_and_says_so(line: LineProcess) -> None:
    with joined(line, silence_s=0.2) as subscription:
        line.publish(a_verdict(1), a_health(1, state="stopping"))
        assert take(subscription, 1) == [1]
        with pytest.raises(LineSilent, match="it was shut down"):
            next(subscription)


def test_a_newer_daemon_is_silent_and_the_reason_is_said(line: LineProcess) -> None:
    topic, payload = encode(a_health(1))
    with joined(line, silence_s=0.2) as subscription:
        line.publish((topic, payload.replace(b'"schema":1', b'"schema":2')))
        with pytest.raises(LineSilent, match="1 malformed messages, the last: schema: found 2, expected 1"):
            next(subscription)


def test_a_busy_caller_does_not_take_its_own_pause_for_silence(line: LineProcess) -> None:
    with joined(line, silence_s=0.2) as subscription:
        line.publish(a_health(0), a_verdict(1), a_health(1), a_verdict(2))
        assert take(subscription, 1) == [1]
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        assert take(subscription, 1) == [2]


def test_what_the_queues_drop_is_reported(line_process: LineMaker) -> None:
    line = line_process(queue=1)
    received, lost = [], 0
    with joined(line, silence_s=0.3) as subscription:
        line.publish(a_verdict(1))
        assert take(subscription, 1) == [1]
        line.publish(*(a_verdict(seq) for seq in range(2, 5001)))
        while len(received) + lost < 4999:
            try:
                received.append(next(subscription).seq)
            except VerdictsLost as loss:
                lost += loss.last - loss.first + 1
            except LineSilent:
                line.publish(a_health(5000))
    assert lost > 0
    assert received == sorted(set(received))


def test_a_closed_subscription_ends(line: LineProcess) -> None:
    subscription = joined(line)
    line.publish(*(a_verdict(seq) for seq in (1, 2, 3)))
    received = []
    for verdict in subscription:
        received.append(verdict.seq)
        subscription.close()
    subscription.close()
    assert received == [1]


def test_a_camera_the_line_does_not_have_is_warned_of_once(
    line: LineProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with joined(line, cameras={"topp", "top"}) as subscription, caplog.at_level(logging.WARNING):
        line.publish(a_health(0, state="starting", cameras={}), a_health(0), a_health(0), a_verdict(1))
        assert take(subscription, 1) == [1]
    assert [record.getMessage() for record in caplog.records] == ["line3 has no camera topp, only top"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"address": "localhost"}, "address: found 'localhost', expected tcp://HOST:PORT or ipc://PATH"),
        ({"line": "line3/top"}, "line: found 'line3/top'"),
        ({"cameras": "top"}, "cameras: found 'top', expected names"),
        ({"cameras": []}, "cameras: found"),
        ({"decisions": "reject"}, "decisions: found 'reject', expected some of fault, pass, reject"),
        ({"decisions": {"rejects"}}, "decisions: found"),
        ({"decisions": ()}, "decisions: found"),
        ({"silence_s": 0}, "silence_s: found 0, expected seconds above 0"),
        ({"silence_s": float("nan")}, "silence_s: found nan"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        subscribe(**{"address": "tcp://127.0.0.1:1", "line": "line3"} | options)


def test_read_health_gives_the_next_health(line: LineProcess) -> None:
    health = a_health(1, state="degraded")
    with published_again_and_again(line, a_verdict(1), health):
        assert read_health(line.address, line="line3", timeout_s=PATIENCE_S) == health


def test_read_health_of_a_silent_line_ends(line: LineProcess) -> None:
    with pytest.raises(LineSilent):
        read_health(line.address, line="line3", timeout_s=0.2)
