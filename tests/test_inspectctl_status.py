"""What ``inspectctl status`` tells beyond health, and how commands find the line of this machine."""

import logging
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from in_process import refused, run
from line_process import a_verdict
from line_rig import COMMANDS, running, write_config
from patience import PATIENCE_S

from daemon.delivery.tally import Tally
from daemon.inspectctl.cli import main as inspectctl
from daemon.inspectctl.this_machine import running_configs
from verdicts import Latency, LineControl, MalformedMessage
from verdicts.statistics import decode_statistics, encode_statistics

BELT = {"source": "simulated://?width=64&height=64&cached=4", "fps": 100}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def judged(tally: Tally, seq: int, total_ms: float) -> None:
    tally.count(replace(a_verdict(seq), decision="pass", reason=None, latency_ms=Latency(1.0, 2.0, total_ms)))


def faulted(tally: Tally, seq: int, reason: str) -> None:
    latency = Latency(None, None, 1000.0)
    tally.count(a_verdict(seq, decision="fault", reason=reason, score=None, peak=None, latency_ms=latency))


def test_rates_and_latencies_are_those_of_the_last_minute() -> None:
    clock = Clock()
    tally = Tally(clock=clock)
    for seq in range(1, 101):
        judged(tally, seq, 500.0)
    faulted(tally, 101, "deadline")
    clock.now_s += 300
    for seq in range(102, 302):
        judged(tally, seq, float(seq - 101))
        clock.now_s += 0.1
    told = tally.statistics("aa")
    assert told.reasons == {"deadline": 1}
    assert told.last_fault is not None
    assert (told.last_fault.frame, told.last_fault.reason) == (a_verdict(101).frame, "deadline")
    assert told.latency_ms is not None
    assert told.latency_ms.longest == 200.0
    assert told.latency_ms.median == pytest.approx(100, rel=0.03)
    assert told.latency_ms.p99 == pytest.approx(198, rel=0.03)
    assert 0 < told.per_second <= 10.5
    clock.now_s += 3600
    told = tally.statistics("aa")
    assert (told.per_second, told.latency_ms) == (0, None)
    assert decode_statistics(encode_statistics(told)) == told


def test_the_log_says_once_a_minute_what_became_of_deadlines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inspectd")
    clock = Clock()
    tally = Tally(clock=clock)
    for second in range(150):
        if second < 60:
            judged(tally, second + 1, 10.0)
            faulted(tally, second + 1000, "deadline" if second % 2 else "overload")
        tally.log("line3")
        clock.now_s += 1
    assert [record.getMessage() for record in caplog.records] == [
        "line3: last minute: 120 verdicts, 30 missed the deadline, latency median 10.0 ms, 99 % 10.0 ms, "
        "longest 10.0 ms; other faults: 30 overload"
    ]


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"\xff", b'{"boot":1}', b"null"])
def test_statistics_that_are_none_are_refused(payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_statistics(payload)


def test_status_shows_reasons_rates_latencies_and_the_last_fault(line_folder: Path) -> None:
    config = write_config(
        line_folder,
        {"top": BELT | {"waiting": 4}},
        journal={"file": "line3.journal"},
        control="ipc://control",
        deadline_ms=0.001,
    )
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        line.until(lambda line: line.health.verdicts["fault"] > 0)
        done = subprocess.run(
            [COMMANDS / "inspectctl", "status", "--config", config],
            capture_output=True,
            text=True,
            check=False,
        )
        with LineControl(f"ipc://{line_folder}/control", timeout_s=PATIENCE_S) as control:
            assert control.status().line == "line3"
        line.stop()
    rows = dict(re.split(r"\s+", row, maxsplit=1) for row in done.stdout.splitlines() if " " in row)
    assert re.fullmatch(r"\d+ (deadline|overload)(   \d+ (deadline|overload))?", rows["faults"])
    assert re.fullmatch(r"[\d.]+ per second in the last \d+ s", rows["rate"])
    assert rows["latency"] == "-" or "median" in rows["latency"]
    assert re.match(r"fault (deadline|overload), camera top, frame \d+, \d{4}-", rows["last"])
    assert done.stderr == ""


def test_daemons_are_found_by_their_command_lines(tmp_path: Path) -> None:
    processes = {
        10: ["/usr/bin/python3", "/opt/inspectd/bin/inspectd", "--config", "/etc/inspectd/line3.yaml"],
        11: ["/opt/inspectd/bin/inspectd", "--config=line4.yaml"],
        12: ["python", "inspectd", "--config", "line5.yaml", "--check"],
        13: ["vi", "/etc/inspectd/line3.yaml"],
        14: ["grep", "inspectd", "--config"],
        15: [],
    }
    for pid, words in processes.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        (tmp_path / str(pid) / "cwd").symlink_to("/srv/lines")
    (tmp_path / "self").mkdir()
    assert running_configs(tmp_path) == [Path("/etc/inspectd/line3.yaml"), Path("/srv/lines/line4.yaml")]


def test_with_one_line_on_the_machine_commands_find_it(line_folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("other lines run on this machine, too; to be alone needs root")
    config = write_config(
        line_folder, {"top": BELT}, journal={"file": "line3.journal"}, control="ipc://control"
    )
    script = f"""
        status() {{ {COMMANDS}/inspectctl status; echo "code $?"; }}
        status
        {COMMANDS}/inspectd --config {config.name} 2>log & daemon=$!
        until grep -q running, log; do sleep 0.05; done
        status
        {COMMANDS}/inspectctl reload
        kill $daemon; wait $daemon
    """
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "bash", "-c", script]
    done = subprocess.run(
        alone, cwd=line_folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    if "unshare" in done.stderr:
        pytest.skip(f"cannot be alone here: {done.stderr.strip()}")
    assert done.stderr.splitlines() == [
        "inspectctl: which line: found none that runs on this machine, expected --config"
    ]
    assert "code 2\nline      line3\nstate     running\n" in done.stdout
    assert f"{config.name}: taken up, engine brightness" in done.stdout


@pytest.mark.parametrize(
    "command",
    [["reload"], ["selftest"], ["select", "flange"], ["trigger", "top"], ["drift"], ["expect", "defect"]],
)
def test_an_answer_that_cannot_be_read_is_one_line(tmp_path: Path, command: list[str]) -> None:
    address = f"ipc://{tmp_path}/control"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as stranger, ThreadPoolExecutor(1) as beside:
        stranger.bind(address)
        stranger.linger = 0
        asked = beside.submit(run, inspectctl, *command, "--control", address)
        assert stranger.poll(PATIENCE_S * 1000)
        client, *_ = stranger.recv_multipart()
        stranger.send_multipart([client, b"{}"])
        said = refused(asked.result(timeout=PATIENCE_S))
    assert said.startswith("inspectctl: reply: missing keys")
