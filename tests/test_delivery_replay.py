import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq
from delivery_line import DeliveryLine
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE_S

from verdicts import (
    ControlRefused,
    LineControl,
    Lost,
    MalformedMessage,
    Subscription,
    VerdictsLost,
    read_health,
    subscribe,
)
from verdicts.checks import NAME
from verdicts.request import (
    LARGEST,
    Acknowledge,
    Reload,
    Replay,
    ReplaySince,
    Reply,
    Request,
    Select,
    Status,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

INSPECTCTL = str(Path(sys.executable).with_name("inspectctl"))


def inspectctl(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [INSPECTCTL, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"TZ": "UTC"},
    )


def joined(line: DeliveryLine, **options: Any) -> Subscription:
    """Subscribe; the line's answer to the subscription tells that it has arrived."""
    options = {"line": "line3", "silence_s": 10, "control": line.control_address} | options
    subscription = subscribe(line.publish_address, **options)
    while subscription.health is None:
        subscription._receive()
    return subscription


def take(subscription: Subscription, count: int) -> list[tuple[str, int]]:
    return [(verdict.boot, verdict.seq) for verdict in (next(subscription) for _ in range(count))]


def of_boot(boot: str, first: int, last: int) -> list[tuple[str, int]]:
    return [(boot, seq) for seq in range(first, last + 1)]


# gaps that are filled


def test_a_gap_is_filled_in_order(line: DeliveryLine) -> None:
    with joined(line) as subscription:
        line.judge(1, 2)
        line.judge_unheard(3, 1500)
        line.judge(1501, 1502)
        assert take(subscription, 1502) == of_boot("aa", 1, 1502)


def test_health_alone_shows_a_gap_and_fills_it(line: DeliveryLine) -> None:
    with joined(line) as subscription:
        line.judge(1, 1)
        line.judge_unheard(2, 700)
        assert take(subscription, 700) == of_boot("aa", 1, 700)


def test_only_what_was_asked_for_comes_out_of_the_journal(line: DeliveryLine) -> None:
    with joined(line, decisions={"reject"}) as subscription:
        line.judge(1, 1)
        line.judge_unheard(2, 3, decision="reject")
        line.judge_unheard(4, 4, decision="reject", camera="side")
        line.judge(5, 6)
        line.judge(7, 7, decision="reject")
        assert take(subscription, 4) == [("aa", 2), ("aa", 3), ("aa", 4), ("aa", 7)]


def test_only_what_the_journal_does_not_have_is_lost(line: DeliveryLine) -> None:
    lost: list[Lost] = []
    with joined(line, on_lost=lost.append) as subscription:
        line.judge(1, 1)
        line.judge_unheard(4, 5)
        line.judge_unheard(9, 9)
        line.judge(12, 12)
        assert take(subscription, 5) == [("aa", seq) for seq in (1, 4, 5, 9, 12)]
    assert lost == [Lost("aa", 2, 3), Lost("aa", 6, 8), Lost("aa", 10, 11)]


def test_without_a_callback_iteration_goes_on_behind_a_loss(line: DeliveryLine) -> None:
    with joined(line) as subscription:
        line.judge(1, 1)
        line.judge_unheard(3, 3)
        line.judge(5, 5)
        found: list[object] = []
        while len(found) < 5:
            try:
                found.append(next(subscription).seq)
            except VerdictsLost as loss:
                found.append((loss.first, loss.last))
    assert found == [1, (2, 2), 3, (4, 4), 5]


def test_the_last_verdicts_of_a_killed_daemon_come_from_its_successor(line: DeliveryLine) -> None:
    with joined(line) as subscription:
        line.judge(1, 10)
        assert take(subscription, 10) == of_boot("aa", 1, 10)
        line.judge_unheard(11, 20)
        line.restart(boot="bb")
        line.judge_unheard(21, 22, boot="aa", decision="fault", reason="shutdown")
        line.judge(1, 5, boot="bb")
        assert take(subscription, 17) == of_boot("aa", 11, 22) + of_boot("bb", 1, 5)


def test_a_line_whose_control_is_silent_reports_the_loss(line: DeliveryLine) -> None:
    with joined(line, control="tcp://127.0.0.1:1") as subscription:
        line.judge(1, 1)
        line.judge(4, 4)
        assert take(subscription, 1) == [("aa", 1)]
        with pytest.raises(VerdictsLost, match="lost 2 verdicts: 2 to 3 of boot aa"):
            next(subscription)
        assert take(subscription, 1) == [("aa", 4)]


# health as the last value


def test_a_new_subscriber_hears_health_without_waiting_for_the_next(line: DeliveryLine) -> None:
    assert read_health(line.publish_address, line="line3", timeout_s=PATIENCE_S).seq == 0
    line.judge(1, 7)
    assert read_health(line.publish_address, line="line3", timeout_s=PATIENCE_S).seq == 7


def test_joining_a_busy_line_is_no_loss(line: DeliveryLine) -> None:
    for first in range(1, 2000, 100):
        with joined(line, control=None) as subscription:
            line.judge(first, first + 99)
            assert next(subscription).seq == first


# slow subscribers


def test_slow_subscribers_do_not_slow_the_line(line: DeliveryLine) -> None:
    """One never reads, one is stopped, one reads slowly; a fourth gets everything, and in time."""
    never = zmq.Context.instance().socket(zmq.SUB)
    never.linger, never.rcvhwm = 0, 1
    never.subscribe(b"")
    never.connect(line.publish_address)
    script = (
        "import sys, time\nfrom verdicts import subscribe\n"
        "for verdict in subscribe(sys.argv[1], line='line3', silence_s=60):\n"
        "    print(flush=True)\n    time.sleep(float(sys.argv[2]))\n"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", script, line.publish_address, "0.01"], stdout=subprocess.PIPE
        ) as slow,
        subprocess.Popen(
            [sys.executable, "-c", script, line.publish_address, "0"], stdout=subprocess.PIPE
        ) as stopped,
        joined(line, control=None) as subscription,
    ):
        seq = 0
        for process in (slow, stopped):
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            while not process.stdout.read():
                seq += 1
                line.judge(seq, seq)
        os.kill(stopped.pid, signal.SIGSTOP)
        before = line.snapshot()["resident_mb"]
        assert take(subscription, seq) == of_boot("aa", 1, seq)
        beat = json.loads(line.tell(do="beat", seconds=1))
        line.judge(seq + 1, seq + 10_000)
        assert take(subscription, 10_000) == of_boot("aa", seq + 1, seq + 10_000)
        assert beat["send_us"] < 1000
        assert line.snapshot()["resident_mb"] - before < 150
        os.kill(stopped.pid, signal.SIGKILL)
        slow.kill()
    never.close()


# replay


def test_replay_by_number_and_by_time(line: DeliveryLine) -> None:
    line.judge(1, 1200)
    line.tell(do="wait", seconds=0.01)
    between = datetime.now(UTC)
    line.judge(1201, 2600)
    with LineControl(line.control_address, timeout_s=PATIENCE_S) as control:
        assert [v.seq for v in control.replay("aa", 1, LARGEST)] == list(range(1, 2601))
        assert [v.seq for v in control.replay("aa", 400, 1000)] == list(range(400, 1001))
        assert [v.seq for v in control.replay("aa", 500, 500)] == [500]
        assert list(control.replay("bb", 1, 10)) == []
        assert control.kept_from is not None
        assert [v.seq for v in control.replay_since(between)] == list(range(1201, 2601))
        assert len(list(control.replay_since(between - timedelta(days=1)))) == 2600
        assert list(control.replay_since(between + timedelta(days=1))) == []


def test_a_replay_of_nothing_is_empty(line: DeliveryLine) -> None:
    with LineControl(line.control_address, timeout_s=PATIENCE_S) as control:
        assert list(control.replay_since(datetime.now(UTC) - timedelta(days=1))) == []
        assert control.kept_from is None


def test_a_journal_that_is_gone_is_refused_and_one_that_is_back_is_read(line: DeliveryLine) -> None:
    line.judge(1, 3)
    with LineControl(line.control_address, timeout_s=PATIENCE_S) as control:
        assert len(list(control.replay("aa", 1, 3))) == 3
        aside = line.journal.with_name("aside")
        line.journal.rename(aside)
        with pytest.raises(ControlRefused, match="cannot be read: No such file"):
            list(control.replay("aa", 1, 3))
        assert control.status().line == "line3"
        aside.rename(line.journal)
        assert len(list(control.replay("aa", 1, 3))) == 3


def test_inspectctl_replays_from_the_daemon_and_from_the_file(line: DeliveryLine) -> None:
    line.judge(1, 3, part="flange")
    line.judge(4, 4, decision="reject")
    by_number = ["replay", "--boot", "aa", "--first", "2", "--last", "3", "--json"]
    answers = [inspectctl(*by_number, "--control", line.control_address)]
    config = line.folder / "line3.yaml"
    config.write_text(f"line: line3\ncontrol: {line.control_address}\n")
    answers.append(inspectctl(*by_number, "--config", config))
    line.kill()
    answers.append(inspectctl(*by_number, "--journal", line.journal))
    for done in answers:
        assert (done.returncode, done.stderr) == (0, "")
        assert [json.loads(row)["seq"] for row in done.stdout.splitlines()] == [2, 3]
    done = inspectctl("replay", "--since", "10m", "--decisions", "reject", "--journal", line.journal)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split()[:4] == ["12:00:00.123", "top", "104", "reject"]


def test_inspectctl_says_what_the_journal_does_not_have(line: DeliveryLine) -> None:
    line.judge(3, 4)
    line.judge(6, 6)
    done = inspectctl("replay", "--boot", "aa", "--last", "9", "--json", "--control", line.control_address)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "inspectctl: 1 to 2 of boot aa are not in the journal",
        "inspectctl: 5 to 5 of boot aa are not in the journal",
        "inspectctl: 7 to 9 of boot aa are not in the journal",
    ]
    done = inspectctl("replay", "--boot", "cc", "--control", line.control_address)
    assert (done.returncode, done.stderr) == (0, "inspectctl: the journal has no such verdicts\n")


def test_inspectctl_says_that_nobody_answers(line: DeliveryLine) -> None:
    line.kill()
    done = inspectctl("replay", "--since", "1h", "--control", line.control_address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"inspectctl: no answer from {line.control_address} for 3 s: does the daemon run?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--since", "10m", "--control", "ipc://here", "--config", "line3.yaml"],
            "inspectctl: which line: expected either --control or --config",
        ),
        (["--since", "soon"], "inspectctl replay: argument --since: found 'soon', expected a time"),
        (["--since", "999999d"], "inspectctl replay: argument --since: found"),
        (["--boot", "x y"], "inspectctl replay: argument --boot: found 'x y', expected the boot"),
        (["--since", "1m", "--last", "3"], "inspectctl: --first, --last: expected with --boot only"),
        (["--boot", "aa", "--first", "5", "--last", "3"], "inspectctl: --first: found 5, expected at most"),
        (
            ["--boot", "aa", "--control", "here"],
            "inspectctl: address: found 'here', expected tcp://HOST:PORT",
        ),
        (["--boot", "aa", "--journal", "/nowhere"], "inspectctl: /nowhere: expected a journal"),
        (["--boot", "aa", "--journal", "x", "--control", "y"], "inspectctl: which journal: expected"),
        ([], "inspectctl replay: one of the arguments --since --boot is required"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], complaint: str) -> None:
    done = inspectctl("replay", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1


# the messages

NAMES = st.from_regex(NAME, fullmatch=True)
COUNTS = st.integers(0, LARGEST)
HEXADECIMAL = st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(Status, COUNTS),
    st.builds(Reload, COUNTS),
    st.builds(Select, COUNTS, NAMES),
    st.builds(Replay, COUNTS, HEXADECIMAL, st.integers(1, 10**6), st.integers(10**6, LARGEST)),
    st.builds(ReplaySince, COUNTS, st.just("2026-01-31T12:00:00.123456Z"), COUNTS),
    st.builds(Acknowledge, COUNTS, NAMES, HEXADECIMAL, st.booleans(), st.none() | COUNTS),
)


@given(REQUESTS)
def test_a_request_comes_through(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_request(frame)
    with pytest.raises(MalformedMessage):
        decode_reply([frame])


@given(
    REQUESTS,
    st.sampled_from(["id", "boot", "first", "last", "name", "row", "client", "join", "since"]),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=2),
)
def test_a_request_with_one_wrong_value_is_refused_or_still_a_request(
    request: Request, key: str, value: object
) -> None:
    content = json.loads(encode_request(request)) | {key: value}
    try:
        decoded = decode_request(json.dumps(content).encode())
    except MalformedMessage:
        return
    assert json.loads(encode_request(decoded)) == content


@given(st.lists(st.binary(max_size=10), max_size=5), COUNTS, st.none() | st.text(max_size=20))
def test_a_reply_comes_through(frames: list[bytes], number: int, text: str | None) -> None:
    reply = Reply("verdicts", number, len(frames), rows=tuple(range(len(frames))), text=text)
    assert decode_reply([encode_reply(reply), *frames]) == (reply, frames)
    with pytest.raises(MalformedMessage):
        decode_reply([encode_reply(reply), *frames, b""])
