"""The plant's side of a line is killed, its peers are away: the line does not notice, and nothing is lost."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
from brightness import SIZE
from patience import PATIENCE_S
from plant_rig import Plant, free_port, plant, until, write_plant
from test_plant_alarms import MailServer, Web

from faults.preload import built
from faults.trial import BELT, Trial

pytest.importorskip("prometheus_client", reason="needs the extra plant: pip install 'inspectd[plant]'")
pytestmark = pytest.mark.slow


def posted(web: Web) -> list[dict[str, Any]]:
    return [verdict for body in web.bodies() for verdict in body["verdicts"]]


def counted(running: Plant, metric: str = "inspectd_verdicts_total") -> float:
    """Add up a metric as it is scraped; 0 while nobody can scrape."""
    try:
        text = running.get("/metrics")[1]
    except OSError:
        return 0.0
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{metric}{{"))


def all_there(trial: Trial, web: Web, first: int) -> None:
    """See that every verdict from one on was posted in order, each once or marked."""
    last = trial.verdicts[-1].seq
    until(lambda: any(verdict["seq"] >= last for verdict in posted(web)[-200:]))
    due = first
    for verdict in posted(web):
        assert verdict["seq"] <= due and (verdict["seq"] == due or verdict["repeated"]), verdict["seq"]
        due = max(due, verdict["seq"] + 1)


def begin(trial: Trial, web: Web, **keys: Any) -> Path:
    trial.start({"top": BELT})
    webhook = {"url": f"http://127.0.0.1:{web.port}/", "decisions": ["pass", "reject", "fault"]}
    return write_plant(trial.folder, webhook=webhook, **keys)


@pytest.mark.faults("Plant", "inspectd-plant killed (SIGKILL), started again")
def test_plant_killed(trial: Trial) -> None:
    web = Web()
    config = begin(trial, web)
    with plant(config) as running:
        until(lambda: len(posted(web)) > 20)
        trial.inject()
        running.process.send_signal(signal.SIGKILL)
        trial.not_told()
        trial.uninterrupted()
    with plant(config):
        all_there(trial, web, posted(web)[0]["seq"])
    trial.finish()


def _trouble_of(running: Plant, way: str) -> str | None:
    found: str | None = running.health()["alarms"][way]
    return found


@pytest.mark.faults("Plant", "webhook: the web server answers errors")
def test_peer_away(trial: Trial) -> None:
    web, told = Web(), Web()
    told.answer = 503
    mail_port = free_port()
    alarms = {
        "after": "300 ms",
        "webhook": {"url": f"http://127.0.0.1:{told.port}/"},
        "mail": {
            "server": f"smtp://127.0.0.1:{mail_port}",
            "sender": "a@example.org",
            "to": ["b@example.org"],
        },
    }
    with plant(begin(trial, web, alarms=alarms)) as running:
        until(lambda: len(posted(web)) > 20)
        trial.inject()
        web.answer = 503
        told_down(trial, running, "webhook", "answers 503")
        trial.uninterrupted(verdicts=200)
        memory = running.memory_mb()
        trial.uninterrupted(verdicts=200)
        assert running.memory_mb() < memory + 5

        # That is told as an alarm, by ways that are away, too.
        for way, fault in (
            ("alarms.mail", "e-mail: the mail server is away"),
            ("alarms.webhook", "alarms by webhook: the web server answers errors"),
        ):
            trial.another(fault)
            trial.inject()
            trial.detected_by(f"/healthz: {way}", partial(_trouble_of, running, way))
            trial.uninterrupted(verdicts=20)
        mail, told.answer = MailServer(mail_port), 200
        trial.wait_until(lambda: bool(mail.mails and told.got))
        assert "webhook is not connected" in mail.mails[0]
        assert [alarm["cause"] for alarm in told.bodies()] == ["output webhook"]
        web.answer = 200
        all_there(trial, web, posted(web)[0]["seq"])

        trial.another("metrics: two hundred clients that ask for nothing and hang on")
        trial.inject()
        port = int(running.address.rpartition(":")[2])
        threads = running.threads()
        hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        trial.not_told()
        trial.uninterrupted(verdicts=100)
        assert running.threads() <= threads + 16
        for connection in hanging:
            connection.close()
        trial.wait_until(lambda: counted(running) > 0)
    trial.finish()


@pytest.mark.faults("Plant", "inspectd killed (SIGKILL) while a gate is on: everything is thrown out")
def test_line_killed_under_a_gate(trial: Trial) -> None:
    trial.start({"top": BELT})
    gate = {"camera": "top", "after": "500 ms", "window": "4 ms", "output": {"simulated": "gate.log"}}
    with plant(write_plant(trial.folder, gates={"reject": gate}, silence="1 s")) as running:
        state = lambda: running.health()["gates"]["reject"]["state"]  # noqa: E731
        until(lambda: state() == "trusted" and counted(running))
        trial.inject()
        before = counted(running)
        trial.killed()
        until(lambda: state() == "ejecting")
        until(lambda: (trial.folder / "gate.log").read_text().split()[-1] == "0")
        trial.not_told()
        trial.launch(None)
        until(lambda: state() == "trusted" and counted(running, "inspectd_restarts_total"))
        assert counted(running) >= before  # of another start, and yet counters do not fall
    trial.finish(possible=[("top", "shutdown"), ("top", "camera"), ("top", "deadline")])


# A broker.

QUICK = {"timeout": "1 s"}


def in_order(verdicts: list[dict[str, Any]], last: int) -> bool:
    """See that what came is in order, each once or marked; tell whether the last is there."""
    due: int = verdicts[0]["seq"]
    for verdict in verdicts:
        assert verdict["seq"] <= due and (verdict["seq"] == due or verdict["repeated"]), verdict["seq"]
        due = max(due, verdict["seq"] + 1)
    return due > last


def told_down(trial: Trial, running: Plant, output: str, because: str) -> None:
    trial.detected_by(f"/healthz: {output} down", lambda: because in (running.output(output)["error"] or ""))


needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None or find_spec("paho") is None,
    reason="needs mosquitto (Debian: mosquitto) and paho-mqtt (pip install 'inspectd[plant]')",
)


@needs_mosquitto
@pytest.mark.faults("Plant", "broker killed (SIGKILL), started again")
def test_broker(trial: Trial, small_disk: Path) -> None:
    from test_plant_mqtt import Broker, Listener

    trial.start({"top": BELT})
    stored = {"persistence": "true", "persistence_location": f"{small_disk}/", "autosave_interval": "1"}
    broker = Broker(trial.folder, **stored)
    listener = Listener(broker.port)
    assert listener.subscribed.wait(PATIENCE_S)
    config = write_plant(trial.folder, mqtt={"broker": f"mqtt://127.0.0.1:{broker.port}", **QUICK})
    with contextlib.ExitStack() as ends:
        ends.callback(broker.kill)
        ends.callback(listener.close)
        running = ends.enter_context(plant(config))
        running.until_connected("mqtt")

        def delivered_again() -> None:
            """Wait until all that was missed has come, in order."""
            last = trial.verdicts[-1].seq
            trial.wait_until(lambda: listener.last_seq() >= last)
            assert in_order(listener.verdicts(), last)

        delivered_again()
        trial.inject()
        broker.kill()
        told_down(trial, running, "mqtt", "refused")
        trial.uninterrupted()
        running.process.send_signal(signal.SIGSTOP)  # who listens is to be there before the first message
        broker.start()
        assert listener.subscribed.wait(PATIENCE_S)
        running.process.send_signal(signal.SIGCONT)
        delivered_again()

        trial.another("broker paused (SIGSTOP)")
        trial.inject()
        broker.process.send_signal(signal.SIGSTOP)
        told_down(trial, running, "mqtt", "does not")
        trial.uninterrupted()
        broker.process.send_signal(signal.SIGCONT)
        delivered_again()

        trial.another("broker whose disk is full")
        trial.inject()
        with (small_disk / "full").open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(1 << 16))
        broker.process.send_signal(signal.SIGUSR1)  # it saves now, and cannot
        trial.not_told()
        trial.uninterrupted(verdicts=200)
        delivered_again()
        assert running.output("mqtt")["state"] == "connected" and broker.process.poll() is None
    trial.finish()


@needs_mosquitto
@pytest.mark.faults("Plant", "broker with a certificate that nobody trusts")
def test_broker_that_is_not_to_be_trusted_or_does_not_trust(trial: Trial) -> None:
    from test_plant_mqtt import Broker, certificates

    ca, certificate, key = certificates(trial.folder / "good")
    other, _, _ = certificates(trial.folder / "other")
    users, secret = trial.folder / "users", trial.folder / "password"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "line3", "geheim"], check=True)
    secret.write_text("falsch")
    secret.chmod(0o600)
    trial.start({"top": BELT})
    broker = Broker(
        trial.folder, cafile=str(ca), certfile=str(certificate), keyfile=str(key), allow_anonymous="false",
        password_file=str(users),
    )  # fmt: skip
    given = {"broker": f"mqtts://127.0.0.1:{broker.port}", "user": "line3", "password": "password"}

    def tried(authority: Path, because: str) -> None:
        with plant(write_plant(trial.folder, mqtt=given | {"ca": str(authority)})) as running:
            trial.inject()
            told_down(trial, running, "mqtt", because)
            trial.uninterrupted(verdicts=30)

    try:
        tried(other, "its certificate is not to be trusted")
        trial.another("broker that knows another password")
        tried(ca, "refuses the connection")
        secret.write_text("geheim")
        with plant(write_plant(trial.folder, mqtt=given | {"ca": str(ca)})) as running:
            trial.wait_until(lambda: running.output("mqtt")["delivered"] > 100)
            assert running.output("mqtt")["lost"] == 0
    finally:
        broker.kill()
    trial.finish()


# A PLC.


class Nonsense:
    """Takes connections and answers each request with bytes that mean nothing."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    while peer.recv(1024):
                        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.faults("Plant", "PLC away, then there")
def test_plc(trial: Trial) -> None:
    pytest.importorskip("pymodbus", reason="needs pymodbus: pip install 'inspectd[plant]'")
    from test_plant_modbus import Plc

    trial.start({"top": BELT | {"fps": 40}})
    plc = Plc()
    modbus = {"address": f"tcp://127.0.0.1:{plc.port}", "register": 10, "acknowledge": 150, **QUICK}
    with plant(write_plant(trial.folder, modbus_client=modbus)) as running:

        def read_again(plcs: list[Plc]) -> None:
            last, there = trial.verdicts[-1].seq, plcs[-1]
            trial.wait_until(lambda: any(result["seq"] >= last for result in there.results[-3:]))
            read = [result for one in plcs for result in one.results]
            assert in_order(read, last)

        read_again([plc])
        trial.inject()
        plc.close()
        told_down(trial, running, "modbus_client", "nobody answers")
        trial.uninterrupted(verdicts=20)
        again = Plc(plc.port)
        read_again([plc, again])

        trial.another("PLC that answers nonsense")
        again.close()
        nonsense = Nonsense(plc.port)
        trial.inject()
        trial.detected_by(
            "/healthz: modbus_client down",
            lambda: (
                running.output("modbus_client")["state"] == "down"
                and "nobody answers" not in running.output("modbus_client")["error"]
            ),
        )
        trial.uninterrupted(verdicts=20)
        nonsense.close()
        last = Plc(plc.port)
        read_again([plc, again, last])
        last.close()
        assert "Traceback" not in running.log
    trial.finish()


class PollingPlc:
    """A PLC that polls `modbus_server`: reads a verdict, acknowledges it, and takes that back."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.results: list[dict[str, Any]] = []
        self.stops_after = "never"
        self.stopped = threading.Event()
        self.runs()

    def runs(self) -> None:
        self.stops_after = "never"
        self.stopped.clear()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        from pymodbus.client import ModbusTcpClient
        from pymodbus.exceptions import ModbusException
        from test_plant_modbus import WORDS, read

        client, valid_before = ModbusTcpClient("127.0.0.1", port=self.port, retries=0), 0
        while self.stops_after == "never" or (self.stops_after == "acknowledging" and not valid_before):
            time.sleep(0.002)  # a turn of its program
            with contextlib.suppress(ModbusException, OSError):
                if not client.connected and not client.connect():
                    continue
                answer = client.read_holding_registers(0, count=WORDS)
                if answer.isError():
                    continue
                result = read(answer.registers)
                if result["valid"] and not valid_before:
                    self.results.append(result)
                client.write_register(100, result["valid"])
                valid_before = result["valid"]
        client.close()
        self.stopped.set()

    def stop(self, after: str = "at once") -> None:
        self.stops_after = after
        assert self.stopped.wait(PATIENCE_S)


@pytest.mark.faults("Plant", "PLC that polls is away, then there")
def test_polling_plc(trial: Trial) -> None:
    pytest.importorskip("pymodbus", reason="needs pymodbus: pip install 'inspectd[plant]'")
    port = free_port()
    trial.start({"top": BELT | {"fps": 40}})
    config = write_plant(trial.folder, modbus_server={"listen": f"tcp://127.0.0.1:{port}", **QUICK})
    with contextlib.ExitStack() as ends:
        running = ends.enter_context(plant(config))
        running.until_connected("modbus_server")
        plc = PollingPlc(port)
        ends.callback(plc.stop)

        def read_again() -> None:
            """Wait until all that was missed was read, in order."""
            last = trial.verdicts[-1].seq
            trial.wait_until(lambda: any(result["seq"] >= last for result in plc.results[-3:]))
            assert in_order(plc.results, last)

        read_again()
        trial.inject()
        plc.stop()
        told_down(trial, running, "modbus_server", "no PLC")
        trial.uninterrupted(verdicts=20)
        plc.runs()
        read_again()

        trial.another("PLC that polls stops amid a handshake, with `acknowledge` 1")
        trial.inject()
        plc.stop("acknowledging")
        told_down(trial, running, "modbus_server", "no PLC acknowledges: register 100 is 1, expected 0")
        trial.uninterrupted(verdicts=20)
        plc.runs()
        read_again()

        trial.another("noise on the port of `modbus_server`, and connections that say nothing")
        trial.inject()
        noisy = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for number, connection in enumerate(noisy[:40]):
            connection.sendall(os.urandom(10 + 5 * number))
        trial.not_told()
        trial.uninterrupted(verdicts=40)
        read_again()
        for connection in noisy:
            connection.close()

        trial.another("inspectd-plant killed (SIGKILL) amid a handshake, started again")
        trial.inject()
        running.process.send_signal(signal.SIGKILL)
        trial.not_told()
        trial.uninterrupted(verdicts=20)
        assert "Traceback" not in running.log
        running = ends.enter_context(plant(config))
        read_again()
        assert "Traceback" not in running.log
    trial.finish()


# The gate.


class Belt:
    """An encoder's file, which a thread keeps writing."""

    def __init__(self, file: Path) -> None:
        self.speed = 1000.0
        self.position = 0.0
        self.nonsense = False
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY)
        self._end = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        count = b"no count at all\n" if self.nonsense else b"%015d\n" % int(self.position)
        os.pwrite(self._file, count, 0)

    def _run(self) -> None:
        before_s = time.monotonic()
        while not self._end.wait(0.002):
            now_s = time.monotonic()
            self.position += self.speed * (now_s - before_s)
            before_s = now_s
            self._write()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        os.close(self._file)


class Watched:
    """A gate, as the plant tells of it, and the file that says how its output moved."""

    def __init__(self, trial: Trial, running: Plant, moved: str = "gate.log") -> None:
        self.trial = trial
        self.running = running
        self.moved = trial.folder / moved

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.running.health()["gates"]["reject"]
        return found

    def rests(self) -> None:
        self.trial.wait_until(lambda: self.moved.read_text().split()[-1] == "0")

    def lets_pass_again(self) -> None:
        self.trial.wait_until(lambda: self.now()["state"] == "trusted")
        passed = self.now()["passed"]
        self.trial.wait_until(lambda: self.now()["passed"] > passed)

    def told(self, because: str) -> None:
        """Wait until it is told why everything is thrown out, and see that it is."""
        self.trial.detected_by("/healthz: gate ejects", lambda: because in (self.now()["error"] or ""))
        self.rests()


@pytest.fixture
def belt(line_folder: Path) -> Iterator[Belt]:
    belt = Belt(line_folder / "count")
    yield belt
    belt.close()


ENCODER = MappingProxyType({"counter": "count"})
OUTPUT = MappingProxyType({"simulated": "gate.log"})


def gate_on(trial: Trial, belt: Mapping[str, Any] = ENCODER, output: Mapping[str, Any] = OUTPUT) -> Path:
    """Start a line, and write the config of a gate that counts on the belt's encoder."""
    parts = trial.folder / "parts"
    parts.mkdir()
    for number in range(3):
        cv2.imwrite(
            str(parts / f"{number}.png"), np.full((SIZE, SIZE, 3), 30 + number, np.uint8)
        )  # they pass
    trial.start({"top": {"source": "parts", "fps": 40, "loop": True, "waiting": 200}})
    gate = {"camera": "top", "after_pulses": 600, "window": 20, "output": dict(output)}
    return write_plant(trial.folder, belt=dict(belt), gates={"reject": gate})


@pytest.mark.faults("Plant", "encoder jumps: everything on its way is thrown out")
def test_encoder(trial: Trial, belt: Belt) -> None:
    with plant(gate_on(trial)) as running:
        gate = Watched(trial, running)
        gate.lets_pass_again()
        trial.inject()
        belt.position += 1_000_000
        trial.detected_by("log of inspectd-plant", lambda: "the encoder jumped by" in running.log)
        trial.uninterrupted(verdicts=20)
        gate.lets_pass_again()

        trial.another("encoder stands still while parts come: everything is thrown out")
        trial.inject()
        belt.speed = 0.0
        gate.told("the belt stands still while parts come")
        trial.uninterrupted(verdicts=20)
        belt.speed = 1000.0
        gate.lets_pass_again()

        trial.another("encoder's file holds nonsense: everything is thrown out")
        trial.inject()
        belt.nonsense = True
        gate.told("no count at all")
        trial.uninterrupted(verdicts=20)
        belt.nonsense = False
        gate.lets_pass_again()
    trial.finish()


@pytest.mark.faults("Plant", "clock stepped beside a gate: parts judged around it are thrown out")
def test_gate_and_clock(trial: Trial, belt: Belt) -> None:
    offset = trial.folder / "offset"
    offset.write_text("0")
    clock = {"LD_PRELOAD": built("wall_clock.c", trial.folder), "WALL_CLOCK_OFFSET": str(offset)}
    config = gate_on(trial)
    with plant(config, clock) as running:
        gate = Watched(trial, running)
        gate.lets_pass_again()
        trial.inject()
        offset.write_text("30")
        trial.detected_by("log of inspectd-plant", lambda: "the clock was stepped" in running.log)
        unknown = gate.now()["unknown"]
        trial.wait_until(lambda: gate.now()["unknown"] > unknown)
        offset.write_text("0")
        gate.lets_pass_again()

        trial.another("inspectd-plant stopped (SIGSTOP): its gates hear the line by themselves, and go on")
        trial.inject()
        running.process.send_signal(signal.SIGSTOP)
        trial.not_told()
        trial.uninterrupted(verdicts=80)  # two seconds: the way to the gate takes less
        moved = gate.moved.read_text()
        trial.wait_until(lambda: gate.moved.read_text().count(" 1") > moved.count(" 1") + 5)
        running.process.send_signal(signal.SIGCONT)

        trial.another("verdicts that come after their part: it was thrown out")
        late = gate.now()["late"]
        trial.inject()
        trial.send(signal.SIGSTOP)
        time.sleep(1.0)  # the fault itself: the way to the gate takes less
        trial.send(signal.SIGCONT)
        trial.detected_by("/healthz: late", lambda: gate.now()["late"] > late)
        trial.recovered()
        gate.lets_pass_again()

        trial.another("process of the gates killed (SIGKILL): their outputs rest, all of it is started again")
        [gates] = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        trial.inject()
        os.kill(int(gates), signal.SIGKILL)
        assert running.process.wait(PATIENCE_S) == 1
        assert running.log.splitlines()[-1].endswith("gates: the process of the gates has ended")
        trial.not_told()
        trial.uninterrupted(verdicts=20)
    with plant(config, clock) as running:
        Watched(trial, running).lets_pass_again()
    trial.finish()


@pytest.mark.faults("Plant", "encoder's GPIO chip unplugged, plugged in again: everything is thrown out")
def test_gpio(trial: Trial) -> None:
    packages, encoder, gates = (trial.folder / name for name in ("packages", "encoder", "chip"))
    for folder in (packages, encoder, gates):
        folder.mkdir()
    shutil.copy(Path(__file__).parents[1] / "pretended_gpiod.py", packages / "gpiod.py")
    config = gate_on(
        trial, {"gpio": {"chip": "encoder", "a": 17, "b": 27}}, {"gpio": {"chip": "chip", "line": 22}}
    )
    with plant(config, {"PYTHONPATH": str(packages)}) as running:
        gate = Watched(trial, running, "chip/values")
        gate.lets_pass_again()
        trial.inject()
        (encoder / "gone").touch()
        gate.told("No such device")
        trial.uninterrupted(verdicts=20)
        (encoder / "gone").unlink()
        gate.lets_pass_again()

        trial.another("encoder's GPIO chip loses edges: everything on its way is thrown out")
        trial.inject()
        (encoder / "lose").write_text("40")
        trial.detected_by("log of inspectd-plant", lambda: "lost 40 edges of the encoder" in running.log)
        trial.uninterrupted(verdicts=20)
        gate.lets_pass_again()

        trial.another("gate's GPIO chip unplugged, plugged in again: its output rests meanwhile")
        trial.inject()
        (gates / "gone").touch()
        trial.detected_by("/healthz: gate", lambda: "No such device" in (gate.now()["error"] or ""))
        trial.uninterrupted(verdicts=20)
        (gates / "gone").unlink()
        trial.wait_until(lambda: gate.now()["error"] is None)
        assert "Traceback" not in running.log
    trial.finish()
