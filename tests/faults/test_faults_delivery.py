"""Subscribers that are slow, hostile, strangers or away, and ports that are taken."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from line_rig import free_address
from patience import PATIENCE_S

from faults.trial import BELT, Trial, health

DROPPED = health("dropped_messages", lambda health: health.dropped_messages > 0)


def taken(address: str) -> socket.socket:
    """Listen at an address, as another program that has it."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    listening = socket.socket()
    listening.bind((host, int(port)))
    listening.listen()
    return listening


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(
            "publish", marks=pytest.mark.faults("Delivery", "port of `publish` is taken at the start")
        ),
        pytest.param(
            "control", marks=pytest.mark.faults("Delivery", "port of `control` is taken at the start")
        ),
    ],
)
def test_port_taken(trial: Trial, key: str) -> None:
    address = free_address()
    with taken(address):
        trial.configure({"top": BELT}, **{key: address})
        trial.inject()
        trial.launch()
        trial.detected_in_log(f"{key}: {address} is in use")
        trial.exited(1)  # whoever has it may leave
    assert trial.log.count("\n") == 1, trial.log
    trial.finish()


@contextmanager
def programs(code: str, *arguments: str, count: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """Run programs of our own that say a line once they are at it."""
    started = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for program in started:
            assert program.stdout is not None
            program.stdout.readline()
        yield started
    finally:
        for program in started:
            program.kill()
            program.communicate()


STOPPED_SUBSCRIBER = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.rcvhwm = 1
socket.subscribe(b"")
socket.connect(sys.argv[1])
socket.recv_multipart()
print("reads no more", flush=True)
sys.stdin.read()
"""


@pytest.mark.faults("Delivery", "four subscribers that stop reading (SIGSTOP)")
def test_subscribers_that_never_read(trial: Trial) -> None:
    trial.start({"top": BELT | {"fps": 400}})
    with programs(STOPPED_SUBSCRIBER, trial.content["publish"], count=4) as stopped:
        trial.inject()
        for program in stopped:
            program.send_signal(signal.SIGSTOP)
        trial.not_told()
        trial.uninterrupted("top", verdicts=800)
    trial.finish()


FLOOD = """
import struct, sys, zmq
socket = zmq.Context().socket(zmq.XSUB)
socket.sndhwm = 0
socket.connect(sys.argv[1])
print("floods", flush=True)
number = 0
while True:
    number += 1
    socket.send(b"\\1" + struct.pack(">Q", number * 0x9E3779B97F4A7C15 & (2**64 - 1)))
"""


@pytest.mark.faults("Delivery", "flood of subscriptions")
def test_flood_of_subscriptions(trial: Trial) -> None:
    trial.start({"top": BELT})
    trial.inject()
    with programs(FLOOD, trial.content["publish"]):
        trial.detected(DROPPED)
        trial.uninterrupted("top")
    trial.finish()


@contextmanager
def pouring(address: str) -> Iterator[None]:
    """Open connections and pour noise into them, until the end."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    enough = threading.Event()

    def pour() -> None:
        while not enough.is_set():
            try:
                with socket.create_connection((host, int(port)), timeout=1) as connection:
                    for _ in range(20):
                        connection.sendall(os.urandom(1000))
            except OSError:
                enough.wait(0.005)  # it was thrown out

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("publish", marks=pytest.mark.faults("Delivery", "noise on the port of `publish`")),
        pytest.param("control", marks=pytest.mark.faults("Delivery", "noise on the port of `control`")),
    ],
)
def test_noise(trial: Trial, key: str) -> None:
    # What is not ZeroMQ at all ends in ZeroMQ's own thread; there is nobody to be told of it.
    trial.start({"top": BELT}, control=free_address())
    trial.inject()
    with pouring(trial.content[key]):
        trial.not_told()
        trial.uninterrupted("top")
    trial.finish()


def asking(address: str) -> "zmq.Socket[bytes]":
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(address)
    return dealer


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(
            [b"", b"{}", b"\xff" * 100, b"[" * 60_000, b'{"schema":2,"request":"status","id":1}'],
            marks=pytest.mark.faults("Delivery", "malformed requests"),
        ),
        pytest.param(
            [b'{"schema":1,"request":"status","id":1}' + b" " * 65_536, b" " * 1_000_000],
            marks=pytest.mark.faults("Delivery", "oversized requests (64 KB, 1 MB)"),
        ),
        pytest.param(
            [b'{"schema":1,"request":"reload","id":1}'],
            marks=pytest.mark.faults("Delivery", "command over an open port, without keys"),
        ),
    ],
)
def test_requests(trial: Trial, requests: list[bytes]) -> None:
    trial.start({"top": BELT}, control=free_address())
    with asking(trial.content["control"]) as dealer:
        trial.inject()
        for request in requests:
            dealer.send(request)
        trial.detected(DROPPED)
        trial.uninterrupted("top")
    with asking(trial.content["control"]) as dealer:  # others are answered as before
        dealer.send(b'{"schema":1,"request":"status","id":7}')
        assert dealer.poll(PATIENCE_S * 1000)
        assert json.loads(dealer.recv_multipart()[0])["id"] == 7
    trial.finish()


def with_keys(trial: Trial, **clients: bytes) -> bytes:
    """Start a line that encrypts, and hear it as one of its clients; gives the line's public key."""
    public, secret = zmq.curve_keypair()
    own_public, own_secret = zmq.curve_keypair()
    file = trial.folder / "line3.key_secret"
    file.touch(0o600)
    file.write_text(
        f'metadata\ncurve\n    public-key = "{public.decode()}"\n    secret-key = "{secret.decode()}"\n'
    )
    known = {name: {"key": key.decode()} for name, key in (clients | {"dashboard": own_public}).items()}
    curve = {"secret_key": file.name, "clients": known}
    trial.start({"top": BELT}, control=free_address(), curve=curve, keys=(own_public, own_secret, public))
    return public


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("publish", marks=pytest.mark.faults("Delivery", "unknown key at `publish`")),
        pytest.param("control", marks=pytest.mark.faults("Delivery", "unknown key at `control`")),
    ],
)
def test_unknown_key(trial: Trial, key: str) -> None:
    server = with_keys(trial)
    public, secret = zmq.curve_keypair()
    stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB if key == "publish" else zmq.DEALER)
    stranger.linger = 0
    stranger.curve_publickey, stranger.curve_secretkey, stranger.curve_serverkey = public, secret, server
    with stranger:
        if key == "publish":
            stranger.subscribe(b"")
        trial.inject()
        stranger.connect(trial.content[key])
        if key == "control":
            stranger.send(b'{"schema":1,"request":"status","id":1}')
        trial.detected(DROPPED)
        trial.uninterrupted("top")
        assert not stranger.poll(0), "a stranger was answered"
    trial.finish()


@pytest.mark.faults("Delivery", "command with a key that may not give any")
def test_key_without_the_right(trial: Trial) -> None:
    public, secret = zmq.curve_keypair()
    server = with_keys(trial, viewer=public)
    viewer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    viewer.linger = 0
    viewer.curve_publickey, viewer.curve_secretkey, viewer.curve_serverkey = public, secret, server
    with viewer:
        viewer.connect(trial.content["control"])
        trial.inject()
        viewer.send(b'{"schema":1,"request":"reload","id":1}')
        trial.detected(DROPPED)
        assert viewer.poll(PATIENCE_S * 1000)
        assert json.loads(viewer.recv_multipart()[0])["reply"] == "refused"
        trial.uninterrupted("top")
    trial.finish()


GATE = """
import sys
from verdicts import acknowledged
for verdict in acknowledged(sys.argv[1], line="line3", name="gate", silence_s=30):
    with open(sys.argv[2], "a") as file:
        print(verdict.seq, file=file)
    if verdict.seq % 10 == 0:
        print("has judged", flush=True)
"""
"""A reject gate that writes down what it was given."""

ABSENT = health("subscriber absent", lambda health: not health.subscribers["gate"].present)


def given(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


@pytest.mark.parametrize(
    ("fall", "rise"),
    [
        pytest.param(
            lambda gate: gate.send_signal(signal.SIGSTOP),
            lambda gate: gate.send_signal(signal.SIGCONT),
            marks=pytest.mark.faults("Delivery", "required gate hangs, and goes on"),
        ),
        pytest.param(
            lambda gate: gate.kill(),
            None,
            marks=pytest.mark.faults("Delivery", "required gate killed, and started again"),
        ),
    ],
)
def test_required_gate(
    trial: Trial,
    fall: Callable[["subprocess.Popen[str]"], None],
    rise: Callable[["subprocess.Popen[str]"], None] | None,
) -> None:
    file = trial.folder / "given.txt"
    trial.start({"top": BELT}, required_subscribers=["gate"])
    arguments = (trial.content["control"], str(file))
    with programs(GATE, *arguments) as (gate,):
        trial.wait_for(health("running", lambda health: health.state == "running"), since_s=0)
        trial.inject()
        fall(gate)
        trial.detected(ABSENT)
        trial.uninterrupted("top", verdicts=50)
        if rise is not None:
            rise(gate)
            all_given(trial, file)
        else:
            with programs(GATE, *arguments):
                all_given(trial, file)
    seqs = given(file)
    assert sorted(set(seqs)) == list(range(seqs[0], seqs[-1] + 1)), "the gate missed a verdict"
    if rise is not None:
        assert len(set(seqs)) == len(seqs), "the gate was given a verdict twice"
    trial.finish()


def all_given(trial: Trial, file: Path) -> None:
    """Wait until the gate is back and has been given what it missed."""
    trial.recovered_when(health("gate is back", lambda health: health.state == "running"))
    missed = trial.health.seq
    trial.wait_until(lambda: given(file)[-1] >= missed)
