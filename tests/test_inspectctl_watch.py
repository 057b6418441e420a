import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_process import LineProcess, a_health, a_verdict
from patience import PATIENCE_S

from verdicts import CameraHealth, JournalHealth, SubscriberHealth, decode, encode

INSPECTCTL = [str(Path(sys.executable).with_name("inspectctl"))]
HERE_IS_UTC = os.environ | {"TZ": "UTC"}


def inspectctl(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [*INSPECTCTL, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=HERE_IS_UTC, check=False, timeout=PATIENCE_S
    )


@pytest.fixture
def line() -> Iterator[LineProcess]:
    line = LineProcess()
    yield line
    line.kill()


def started(line: LineProcess, *arguments: str) -> "subprocess.Popen[str]":
    command = [*INSPECTCTL, arguments[0], "--address", line.address, "--line", "line3", *arguments[1:]]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=HERE_IS_UTC
    )
    line.wait_for_subscriber()
    return process


def test_tail_prints_a_line_per_verdict(line: LineProcess) -> None:
    tail = started(line, "tail", "--count", "3")
    line.publish(
        a_verdict(1, part=None),
        a_verdict(2, decision="reject", part="scratch", archive="/srv/rejects/102 ü.png"),
        a_verdict(3, decision="fault"),
        a_verdict(4),
    )
    out, err = tail.communicate(timeout=PATIENCE_S)
    assert [" ".join(row.split()) for row in out.splitlines()] == [
        "12:00:00.123 top 101 pass 0.5000 / 0.2500 - 22.0 ms",
        "12:00:00.123 top 102 reject 0.5000 / 0.2500 scratch 22.0 ms /srv/rejects/102 ü.png",
        "12:00:00.123 top 103 fault deadline - / 0.2500 flange 22.0 ms",
    ]
    assert (tail.returncode, err) == (0, "")


def test_tail_prints_json_as_published(line: LineProcess) -> None:
    tail = started(line, "tail", "--json", "--decisions", "reject,fault", "--count", "2")
    rejected, fault = a_verdict(2, decision="reject", part="ü\n"), a_verdict(3, decision="fault")
    line.publish(a_verdict(1), rejected, fault)
    out, _ = tail.communicate(timeout=PATIENCE_S)
    assert out == "".join(encode(verdict)[1].decode() + "\n" for verdict in (rejected, fault))
    topic = b"line3/top/fault"
    assert decode(topic, json.dumps(json.loads(out.splitlines()[1])).encode()) == fault


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_tail_flushes_each_verdict_and_ends_on_a_signal(line: LineProcess, end: signal.Signals) -> None:
    tail = started(line, "tail")
    line.publish(a_verdict(1))
    assert tail.stdout is not None
    assert " top " in tail.stdout.readline()
    tail.send_signal(end)
    assert tail.communicate(timeout=PATIENCE_S) == ("", "")
    assert tail.returncode == 0


def test_tail_tells_of_lost_verdicts_and_goes_on(line: LineProcess) -> None:
    tail = started(line, "tail", "--decisions", "reject", "--count", "1")
    line.publish(a_verdict(1), a_verdict(5), a_verdict(6, decision="reject"))
    out, err = tail.communicate(timeout=PATIENCE_S)
    assert err == "inspectctl: lost 3 verdicts: 2 to 4 of boot aa\n"
    assert " 106 " in out


def test_tail_tells_of_silence_once_and_goes_on(line: LineProcess) -> None:
    tail = started(line, "tail")
    assert tail.stderr is not None
    complaint = tail.stderr.readline()
    assert complaint.startswith(f"inspectctl: line3 is silent: no health from {line.address} for 3.")
    line.publish(a_health(0), a_verdict(1))
    assert tail.stdout is not None
    assert " 101 " in tail.stdout.readline()
    line.kill()
    assert "line3 is silent" in tail.stderr.readline()
    tail.terminate()
    assert tail.communicate(timeout=PATIENCE_S) == ("", "")


def test_tail_ends_quietly_when_nobody_reads_on(line: LineProcess) -> None:
    tail = started(line, "tail")
    assert tail.stdout is not None
    tail.stdout.close()
    line.publish(a_verdict(1), a_verdict(2))
    assert tail.wait(PATIENCE_S) == 0
    assert tail.stderr is not None
    assert tail.stderr.read() == ""


def test_tail_lets_no_part_name_steer_the_terminal(line: LineProcess) -> None:
    tail = started(line, "tail", "--count", "1")
    line.publish(a_verdict(1, part="\x1b[2J\n\u202eb"))
    out, _ = tail.communicate(timeout=PATIENCE_S)
    assert r"\x1b[2J\n\u202eb" in out
    assert len(out.splitlines()) == 1


def test_status_of_a_running_line(line: LineProcess) -> None:
    status = started(line, "status")
    cameras = {
        "top": CameraHealth(state="running", captured=1200, faults=0, error=None),
        "side-2": CameraHealth(state="stalled", captured=46, faults=3, error="no frame for 2 s"),
    }
    line.publish(
        a_health(
            1246,
            cameras=cameras,
            verdicts={"pass": 1231, "reject": 12, "fault": 3},
            waiting=2,
            journal=JournalHealth(state="ok", entries=1250, head="0123456789abcdef" * 4, error=None),
            subscribers={"gate": SubscriberHealth(present=False, unacknowledged=7)},
        )
    )
    out, err = status.communicate(timeout=PATIENCE_S)
    assert [" ".join(row.split()) for row in out.splitlines()] == [
        "line line3",
        "state running",
        "up 1:02:05",
        "product -",
        "engine flange-xs 0123abcd",
        "verdicts 1231 pass 12 reject 3 fault",
        "waiting 2",
        "journal ok, 1250 rows, head 0123456789ab",
        "dropped 0 messages",
        "",
        "camera state captured faults error",
        "top running 1200 0",
        "side-2 stalled 46 3 no frame for 2 s",
        "",
        "subscriber state unacknowledged",
        "gate absent 7",
    ]
    assert (status.returncode, err) == (0, "")


@pytest.mark.parametrize("state", ["starting", "degraded", "stopping"])
def test_status_of_a_line_that_is_not_well(line: LineProcess, state: str) -> None:
    status = started(line, "status")
    line.publish(a_health(0, state=state))
    out, _ = status.communicate(timeout=PATIENCE_S)
    assert f"state     {state}" in out
    assert status.returncode == 1


def test_status_of_a_silent_line_takes_the_address_from_the_config(line: LineProcess, tmp_path: Path) -> None:
    line.kill()
    config = tmp_path / "line3.yaml"
    config.write_text(f"line: line3\npublish: tcp://*:{line.port}\ncameras: {{}}\n")
    done = inspectctl("status", "--config", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"inspectctl: line3 is silent: no health from tcp://127.0.0.1:{line.port} for 3."
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        ("line: [", "1: not YAML: expected the node content"),
        ("\x00", "not YAML: unacceptable character"),
        ("- line3", "found no keys and values; expected the config of a line"),
        ("publish: tcp://127.0.0.1:5560", "line: found nothing, expected text such as line3"),
        ("line: 3\npublish: tcp://127.0.0.1:5560", "line: found 3, expected text such as line3"),
        ("line: line3\npublish: 5560", "publish: found 5560, expected text such as tcp://127.0.0.1:5560"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path: Path, content: str | None, complaint: str) -> None:
    config = tmp_path / "line3.yaml"
    if content is not None:
        config.write_text(content)
    done = inspectctl("tail", "--config", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"inspectctl: {config}:")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "inspectctl: the following arguments are required: COMMAND"),
        (["status", "--line", "line3"], "inspectctl: which line: expected --address and --line"),
        (["tail", "--line", "l", "--config", "x.yaml"], "inspectctl: which line: expected"),
        (["tail", "--line", "a/b", "--address", "tcp://127.0.0.1:1"], "inspectctl: line: found 'a/b'"),
        (
            ["status", "--line", "a", "--address", "here"],
            "inspectctl: address: found 'here', expected tcp://HOST:PORT",
        ),
        (
            ["tail", "--decisions", "rejects"],
            "inspectctl tail: argument --decisions: found 'rejects', expected",
        ),
        (["tail", "--count", "0"], "inspectctl tail: argument --count: found '0', expected a whole number"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], complaint: str) -> None:
    done = inspectctl(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(complaint)
    assert done.stderr.count("\n") == 1
