import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zmq
from delivery_line import DeliveryLine
from patience import PATIENCE_S

from daemon.host.access import Client, CurveAccess
from foundation.errors import InputError
from verdicts import (
    ControlRefused,
    ControlSilent,
    CurveKeys,
    Health,
    LineControl,
    LineSilent,
    SubscriberRefused,
    acknowledged,
    read_health,
    subscribe,
)

INSPECTCTL = str(Path(sys.executable).with_name("inspectctl"))


def inspectctl(*arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [INSPECTCTL, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **options,
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a line and of some clients, made by ``inspectctl keygen``."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("line3", "dashboard", "operator", "gate", "stranger", "other-line"):
        assert inspectctl("keygen", name, "--out", folder).returncode == 0
    return folder


def public_key(folder: Path, name: str) -> str:
    found = re.search(r'public-key = "(.{40})"', (folder / f"{name}.key").read_text())
    assert found
    return found[1]


def curve_keys(folder: Path, name: str, line: str = "line3") -> CurveKeys:
    return CurveKeys.read(folder / f"{name}.key_secret", folder / f"{line}.key")


@pytest.fixture
def line(tmp_path: Path, keys: Path) -> Iterator[DeliveryLine]:
    clients = {name: {"key": public_key(keys, name)} for name in ("dashboard", "gate")}
    clients["operator"] = {"key": public_key(keys, "operator"), "control": True}  # type: ignore[dict-item]
    curve = {"secret_key": str(keys / "line3.key_secret"), "clients": clients}
    line = DeliveryLine(tmp_path, curve=curve)
    yield line
    if line.process.poll() is None:
        line.kill()


@pytest.fixture
def open_line(tmp_path: Path) -> Iterator[DeliveryLine]:
    line = DeliveryLine(tmp_path)
    yield line
    if line.process.poll() is None:
        line.kill()


# keygen and key files


def test_keygen_writes_keys_that_fit_and_config_lines_that_can_be_pasted(tmp_path: Path) -> None:
    done = inspectctl("keygen", "gate", "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    secret = tmp_path / "gate.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    keys = CurveKeys.read(secret, tmp_path / "gate.key")
    assert zmq.curve_public(keys.secret_key.encode()).decode() == keys.public_key == keys.server_key
    assert f"key: '{keys.public_key}'" in done.stdout
    assert f"secret_key: {secret.resolve()}" in done.stdout
    assert keys.secret_key not in done.stdout
    assert keys.secret_key not in (tmp_path / "gate.key").read_text()
    assert keys.secret_key not in repr(keys)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gate.key", "gate.key_secret"]


@pytest.mark.parametrize("existing", ["gate.key", "gate.key_secret"])
def test_keygen_never_overwrites(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    done = inspectctl("keygen", "gate", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"inspectctl: {tmp_path / existing}: is there already; keys are never overwritten\n"
    assert [file.name for file in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["../gate"], "NAME: found '../gate', expected"),
        (["gate", "--out", "/nowhere"], "/nowhere: keys cannot be written: No such file or directory"),
    ],
)
def test_keygen_names_what_is_wrong(arguments: list[str], complaint: str) -> None:
    done = inspectctl("keygen", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"inspectctl: {complaint}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620])
def test_a_secret_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    inspectctl("keygen", "line3", "--out", tmp_path)
    (tmp_path / "line3.key_secret").chmod(mode)
    with pytest.raises(InputError, match=f"found mode 0{mode:o}, expected 0600"):
        CurveAccess(str(tmp_path / "line3.key_secret"), {})


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "found no public key, expected a key file"),
        (b"\xff" * 100, "found no public key, expected a key file"),
        (b" " * 20_000, "found 20000 bytes, expected a key file"),
        (b'public-key = "short"', "expected 40 characters of Z85"),
        (b'public-key = "' + b"#" * 40 + b'"', "expected 40 characters of Z85"),
        (b'public-key = "' + b"a" * 40 + b'"', "found a public key only"),
        (b'public-key = "' + b"a" * 40 + b'"\nsecret-key = "' + b"b" * 40 + b'"', "does not belong"),
    ],
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "line3.key_secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(InputError, match=re.escape(f"curve.secret_key: {file}: ")) as refusal:
        CurveAccess(str(file), {})
    assert complaint in str(refusal.value)


def test_the_key_may_come_as_a_credential_of_the_service(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="there is no \\$CREDENTIALS_DIRECTORY"):
        CurveAccess("credential:line3", {})
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(InputError, match="expected credential:NAME without a folder"):
        CurveAccess("credential:../line3", {})
    (tmp_path / "line3").write_bytes((keys / "line3.key_secret").read_bytes())
    (tmp_path / "line3").chmod(0o400)
    access = CurveAccess("credential:line3", {})
    assert access.public_key == public_key(keys, "line3")
    access.close()


def test_clients_without_a_key_of_their_own_are_refused(keys: Path) -> None:
    secret, key = str(keys / "line3.key_secret"), public_key(keys, "gate")
    with pytest.raises(InputError, match=r"curve\.clients\.gate\.key: found 'abc', expected a public key"):
        CurveAccess(secret, {"gate": Client("abc")})
    with pytest.raises(InputError, match=r"curve\.clients\.other\.key: is also the key of gate"):
        CurveAccess(secret, {"gate": Client(key), "other": Client(key)})


# who is let in


def test_a_client_on_the_list_hears_and_asks(line: DeliveryLine, keys: Path) -> None:
    mine = curve_keys(keys, "dashboard")
    with LineControl(line.control_address, curve=mine, timeout_s=PATIENCE_S) as control:
        assert control.status().line == "line3"
        line.judge(1, 10)
        assert [verdict.seq for verdict in control.replay("aa", 3, 5)] == [3, 4, 5]
    assert read_health(line.publish_address, line="line3", curve=mine, timeout_s=PATIENCE_S).line == "line3"
    with subscribe(
        line.publish_address, line="line3", curve=mine, control=line.control_address
    ) as subscription:
        while subscription.health is None:
            subscription._receive()
        line.judge(11, 11)
        line.judge_unheard(12, 15)
        line.judge(16, 16)
        assert [next(subscription).seq for _ in range(6)] == list(range(11, 17))


@pytest.mark.parametrize(
    ("client", "of_line"),
    [(None, None), ("stranger", "line3"), ("dashboard", "other-line")],
    ids=["no key", "wrong key", "wrong server key"],
)
def test_others_hear_and_get_nothing(
    line: DeliveryLine, keys: Path, client: str | None, of_line: str | None
) -> None:
    curve = None if client is None or of_line is None else curve_keys(keys, client, of_line)
    with pytest.raises(LineSilent):
        read_health(line.publish_address, line="line3", timeout_s=0.7, curve=curve)
    with (
        LineControl(line.control_address, curve=curve, timeout_s=0.7) as control,
        pytest.raises(ControlSilent, match="no answer from"),
    ):
        control.status()
    assert (line.snapshot()["dropped"] > 0) == (client == "stranger")
    with LineControl(
        line.control_address, curve=curve_keys(keys, "dashboard"), timeout_s=PATIENCE_S
    ) as control:
        assert control.status().line == "line3"


def test_commands_need_the_right(line: DeliveryLine, keys: Path) -> None:
    with LineControl(
        line.control_address, curve=curve_keys(keys, "dashboard"), timeout_s=PATIENCE_S
    ) as control:
        for command in (control.reload, lambda: control.select("flange")):
            with pytest.raises(
                ControlRefused,
                match="needs a key with control: true; the key of dashboard has control: false",
            ):
                command()
    with LineControl(
        line.control_address, curve=curve_keys(keys, "operator"), timeout_s=PATIENCE_S
    ) as control:
        assert control.reload() == "reload {}"
        assert control.select("flange") == "select {'product': 'flange'}"
        with pytest.raises(ControlRefused, match="product: found unknown, expected flange"):
            control.select("unknown")
        with pytest.raises(ControlRefused, match="failed: out of memory"):
            control.select("broken")
        assert control.select("flange") == "select {'product': 'flange'}"
    assert line.snapshot()["dropped"] == 2


def test_nobody_acknowledges_in_the_name_of_another(line: DeliveryLine, keys: Path) -> None:
    with (
        acknowledged(
            line.control_address, line="line3", name="gate", curve=curve_keys(keys, "dashboard")
        ) as forger,
        pytest.raises(SubscriberRefused, match="found gate, expected dashboard, the name of the key"),
    ):
        next(forger)
    with acknowledged(
        line.control_address, line="line3", name="gate", curve=curve_keys(keys, "gate")
    ) as subscription:
        while subscription.health is None:
            subscription._receive()
        line.judge(1, 3)
        assert [next(subscription).seq for _ in range(3)] == [1, 2, 3]


def test_a_new_list_counts_at_once(line: DeliveryLine, keys: Path) -> None:
    with LineControl(line.control_address, curve=curve_keys(keys, "operator"), timeout_s=0.7) as control:
        control.reload()
        line.tell(do="clients", clients={"stranger": {"key": public_key(keys, "stranger")}})
        with pytest.raises(ControlSilent):
            control.reload()
    assert (
        read_health(
            line.publish_address, line="line3", curve=curve_keys(keys, "stranger"), timeout_s=PATIENCE_S
        ).line
        == "line3"
    )


def first_status(control: LineControl) -> Health:
    """Ask until the line, which has just started, has a health to tell of."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return control.status()
        except ControlRefused as refused:
            if "no health yet" not in str(refused) or time.monotonic() > give_up:
                raise


def test_without_keys_commands_need_a_guarded_socket_file(tmp_path: Path, open_line: DeliveryLine) -> None:
    with LineControl(open_line.control_address, timeout_s=PATIENCE_S) as control:
        for command in (control.reload, lambda: control.select("flange")):
            with pytest.raises(
                ControlRefused, match=r"needs keys \(the section curve\), or an ipc:// address"
            ):
                command()
        assert first_status(control).line == "line3"
    assert open_line.snapshot()["dropped"] == 2
    open_line.kill()
    path = tmp_path / "control.sock"
    guarded = DeliveryLine(tmp_path, control=f"ipc://{path}")
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with LineControl(f"ipc://{path}", timeout_s=PATIENCE_S) as control:
            assert control.select("flange") == "select {'product': 'flange'}"
    finally:
        guarded.kill()


@pytest.mark.parametrize("command", ["reload", "select"])
def test_inspectctl_passes_commands_on(line: DeliveryLine, keys: Path, command: str) -> None:
    arguments = [command, *(["flange"] if command == "select" else []), "--control", line.control_address]
    mine = ["--key", keys / "operator.key_secret", "--server-key", keys / "line3.key"]
    done = inspectctl(*arguments, *mine)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(command)
    theirs = ["--key", keys / "gate.key_secret", "--server-key", keys / "line3.key"]
    done = inspectctl(*arguments, *theirs)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"inspectctl: {command} needs a key with control: true; the key of gate has control: false\n"
    )


def test_inspectctl_watches_a_line_that_encrypts(line: DeliveryLine, keys: Path) -> None:
    where = ["--address", line.publish_address, "--line", "line3"]
    mine = ["--key", keys / "dashboard.key_secret", "--server-key", keys / "line3.key"]
    assert "state     running" in inspectctl("status", *where, *mine).stdout
    assert inspectctl("status", *where).returncode == 1
    done = inspectctl("status", *where, "--key", keys / "dashboard.key_secret")
    assert (done.returncode, done.stderr) == (
        2,
        "inspectctl: keys: expected --key and --server-key, or neither\n",
    )


# garbage


def _pour(address: str, stop: threading.Event) -> None:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    while not stop.is_set():
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as connection:
            connection.settimeout(0.2)
            for _ in range(20):
                connection.sendall(os.urandom(1000))


@pytest.mark.parametrize("encrypted", [False, True])
def test_garbage_on_both_ports_disturbs_nobody(
    request: pytest.FixtureRequest, keys: Path, encrypted: bool
) -> None:
    line: DeliveryLine = request.getfixturevalue("line" if encrypted else "open_line")
    curve = curve_keys(keys, "gate") if encrypted else None
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        for address in (line.publish_address, line.control_address):
            pool.submit(_pour, address, stop)
        try:
            with (
                subscribe(line.publish_address, line="line3", curve=curve, silence_s=PATIENCE_S) as fast,
                acknowledged(
                    line.control_address, line="line3", name="gate", curve=curve, silence_s=PATIENCE_S
                ) as sure,
            ):
                while fast.health is None:
                    fast._receive()
                while sure.health is None:
                    sure._receive()
                line.judge(1, 500)
                assert [next(fast).seq for _ in range(500)] == list(range(1, 501))
                assert [next(sure).seq for _ in range(500)] == list(range(1, 501))
        finally:
            stop.set()
    assert line.process.poll() is None


MALFORMED = [
    [b""],
    [b"{}"],
    [b"\xff" * 100],
    [b"null"],
    [b"[" * 60_000],
    [b'{"schema":1,"request":"status","id":1}', b"more"],
    [b"", b'{"schema":1,"request":"status","id":1}'],
    [b'{"schema":2,"request":"status","id":1}'],
    [b'{"schema":1,"request":"status","id":-1}'],
    [b'{"schema":1,"request":"status","id":1,"id":1}'],
    [b'{"schema":1,"request":["status"],"id":1}'],
    [b'{"schema":1,"request":"shutdown","id":1}'],
    [b'{"schema":1,"request":"replay","id":1,"boot":"aa","first":5,"last":4}'],
    [b'{"schema":1,"request":"replay","id":1,"boot":"../x","first":1,"last":4}'],
    [b'{"schema":1,"request":"replay_since","id":1,"since":"yesterday","after":0}'],
    [b'{"schema":1,"request":"acknowledge","id":1,"name":"a/b","client":"aa","join":true,"row":null}'],
    [b'{"schema":1,"request":"select","id":1,"product":"../../etc"}'],
    [b'{"schema":1,"request":"status","id":1}' + b" " * 65_536],
]


def test_malformed_and_oversized_messages_are_dropped_and_counted(open_line: DeliveryLine) -> None:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(open_line.control_address)
    for message in MALFORMED:
        socket.send_multipart(message)
    socket.send(b'{"schema":1,"request":"status","id":7}')
    assert socket.poll(PATIENCE_S * 1000)
    assert b'"id":7' in socket.recv_multipart()[0]
    assert open_line.snapshot()["dropped"] == len(MALFORMED)
    socket.send(b" " * 1_000_000)  # the connection is dropped for this
    socket.close()
    with LineControl(open_line.control_address, timeout_s=PATIENCE_S) as control:
        assert control.status().line == "line3"


FLOOD = """
import struct, sys, zmq
socket = zmq.Context().socket(zmq.XSUB)
socket.sndhwm = 0
socket.connect(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    socket.send(b"\\1" + struct.pack(">Q", number * 0x9E3779B97F4A7C15 & (2**64 - 1)))
"""


def test_a_flood_of_subscriptions_does_not_hold_the_line_up(open_line: DeliveryLine) -> None:
    before = open_line.snapshot()
    with (
        subprocess.Popen(
            [sys.executable, "-c", FLOOD, open_line.publish_address], stdout=subprocess.PIPE, text=True
        ) as flood,
        subscribe(open_line.publish_address, line="line3") as subscription,
    ):
        assert flood.stdout is not None
        flood.stdout.readline()
        open_line.until(lambda snapshot: snapshot["publisher_dropped"] > 0)  # broken off once
        beat = open_line.tell(do="beat", seconds=2)
        flooded = open_line.snapshot()
        flood.kill()
        while subscription.health is None:
            subscription._receive()
    assert int(re.findall(r'"sent": (\d+)', beat)[0]) > 100, "PUB without a bound was held up for seconds"
    assert flooded["resident_mb"] - before["resident_mb"] < 100


def test_rubbish_in_place_of_subscriptions_is_dropped_and_counted(open_line: DeliveryLine) -> None:
    socket = zmq.Context.instance().socket(zmq.XSUB)
    socket.linger = 0
    socket.connect(open_line.publish_address)
    for _ in range(10):
        socket.send(b"\5rubbish")
    socket.send(b"\1" + b"x" * 5000)  # too long: the connection is dropped
    open_line.until(lambda snapshot: snapshot["publisher_dropped"] == 10)
    socket.close()
    assert read_health(open_line.publish_address, line="line3", timeout_s=PATIENCE_S).line == "line3"
