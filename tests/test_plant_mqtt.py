"""MQTT against a real mosquitto: killed, paused, with TLS and passwords; nothing lost, in order."""

import datetime
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from delivery_line import DeliveryLine
from patience import PATIENCE_S
from plant_rig import Plant, complaint, free_port, plant, until, write_plant

mqtt = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'inspectd[plant]'")
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: mosquitto)"),
    pytest.mark.slow,
]


class Broker:
    """A mosquitto on the loopback."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
        self.conf = folder / "mosquitto.conf"
        lines = {
            "listener": f"{self.port} 127.0.0.1",
            "user": "root",
            "allow_anonymous": "true",
            "max_queued_messages": "0",  # else it drops what a slow listener has not taken
            "max_inflight_messages": "0",  # nor holds it back: what it has confirmed would die with it
        } | options
        self.conf.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self.process = subprocess.Popen([MOSQUITTO, "-c", self.conf], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Listener:
    """Somebody who listens to everything, and connects again when the broker comes back."""

    def __init__(self, port: int) -> None:
        self.messages: list[Any] = []
        self.subscribed = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.reconnect_delay_set(0.1, 0.2)
        self.client.on_connect = lambda client, *_: client.subscribe("inspectd/#", qos=1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_disconnect = lambda *_: self.subscribed.clear()
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def verdicts(self) -> list[dict[str, Any]]:
        found = [message for message in list(self.messages) if "/verdict/" in message.topic]
        return [json.loads(message.payload) for message in found]

    def last_seq(self) -> int:
        newest = next((m for m in reversed(self.messages) if "/verdict/" in m.topic), None)
        return 0 if newest is None else int(json.loads(newest.payload)["seq"])

    def last(self, topic: str) -> str | None:
        found = [message for message in list(self.messages) if message.topic == topic]
        return found[-1].payload.decode() if found else None

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.process.send_signal(signal.SIGCONT)
    broker.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker.port)
    assert listener.subscribed.wait(PATIENCE_S)
    yield listener
    listener.close()


def all_there(listener: Listener, last: int) -> list[dict[str, Any]]:
    """Wait for the last verdict; see that each is there, in order, and what came twice is marked."""
    until(lambda: any(v["seq"] == last for v in listener.verdicts()[-1:]), what=listener.verdicts()[-1:])
    verdicts = listener.verdicts()
    seen: set[int] = set()
    for verdict in verdicts:
        assert verdict["seq"] not in seen or verdict["repeated"], verdict
        # Each is new, and next; or it is repeated.
        assert verdict["seq"] <= len(seen) + 1, verdict
        seen.add(verdict["seq"])
    assert seen == set(range(1, last + 1))
    return verdicts


def test_nothing_is_lost_while_the_broker_is_killed_or_hangs_or_this_process_is_killed(
    line: DeliveryLine, broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    config = write_plant(tmp_path, line, mqtt={"broker": f"mqtt://127.0.0.1:{broker.port}", "timeout": "1 s"})
    with plant(config) as running:
        running.until_connected("mqtt")
        line.judge(1, 300)
        line.judge(301, 302, decision="reject", score=0.9)
        verdicts = all_there(listener, 302)
        assert not any(verdict["repeated"] for verdict in verdicts)
        topics = [message.topic for message in listener.messages if "/verdict/" in message.topic]
        assert topics[-1] == "inspectd/line3/verdict/top/reject"
        assert topics[0] == "inspectd/line3/verdict/top/pass"
        assert verdicts[0]["peak"] == {"x": 12, "y": 34} and verdicts[0]["frame"] == 101
        assert listener.last("inspectd/line3/state") == "running"
        until(lambda: json.loads(listener.last("inspectd/line3/health") or "{}").get("seq") == 302)

        broker.process.send_signal(signal.SIGSTOP)
        line.judge(303, 900)
        down = running.until("mqtt", lambda output: output["state"] == "down")
        assert "does not" in down["error"] and down["failures"] >= 1
        broker.process.send_signal(signal.SIGCONT)
        all_there(listener, 900)

        broker.kill()
        line.judge(901, 2500)
        running.until("mqtt", lambda output: "refused" in (output["error"] or ""))
        threads, memory = running.threads(), running.memory_mb()
        line.judge(2501, 6000)
        running.until("mqtt", lambda output: output["failures"] >= 3)
        until(lambda: running.threads() <= threads)  # an attempt under way has one of its own
        assert running.memory_mb() < memory + 10
        # Who listens is to be there before the first message.
        running.process.send_signal(signal.SIGSTOP)
        broker.start()
        assert listener.subscribed.wait(PATIENCE_S)
        running.process.send_signal(signal.SIGCONT)
        all_there(listener, 6000)

        line.judge(6001, 6500)
        running.process.kill()
        line.judge(6501, 7000)
    until(lambda: listener.last("inspectd/line3/state") == "offline")
    with plant(config) as running:
        all_there(listener, 7000)
        line.kill()
        until(lambda: listener.last("inspectd/line3/state") == "silent")
        assert running.get("/readyz")[0] == 503
        line.start()
        until(lambda: listener.last("inspectd/line3/state") == "running")
        until(lambda: running.get("/readyz")[0] == 200)
        assert running.stop() == 0
    until(lambda: listener.last("inspectd/line3/state") == "offline")
    assert "Traceback" not in running.log


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority, and a certificate that it signed for 127.0.0.1; give the files of all three."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def signed(subject: str, public: Any, extension: Any) -> bytes:
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("authority"))
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(
            now + datetime.timedelta(9)
        )
        builder = builder.add_extension(extension, critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = folder / "ca.pem", folder / "broker.pem", folder / "broker.key"
    files[0].write_bytes(
        signed("authority", authority.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    )
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    files[1].write_bytes(signed("broker", key.public_key(), alternative))
    files[2].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def test_tls_and_passwords_are_checked_on_both_sides(line: DeliveryLine, tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path / "good")
    other_ca, _, _ = certificates(tmp_path / "other")
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "line3", "geheim"], check=True)
    broker = Broker(
        tmp_path,
        cafile=str(ca),
        certfile=str(certificate),
        keyfile=str(key),
        allow_anonymous="false",
        password_file=str(users),
    )
    secret = tmp_path / "password"
    secret.write_text("falsch\n")
    secret.chmod(0o600)
    given = {"broker": f"mqtts://127.0.0.1:{broker.port}", "user": "line3", "password": "password"}

    def tried(ca: Path) -> Plant:
        return Plant(write_plant(tmp_path, line, mqtt=given | {"ca": str(ca)}))

    try:
        for authority, complaint in (
            (other_ca, "its certificate is not to be trusted"),
            (ca, "refuses the connection"),
        ):
            running = tried(authority)
            down = running.until("mqtt", lambda output: output["state"] == "down")
            assert complaint in down["error"], down
            assert "falsch" not in running.log
            running.close()
        secret.write_text("geheim\n")
        running = tried(ca)
        running.until_connected("mqtt")
        line.judge(1, 10)
        running.until("mqtt", lambda output: output["delivered"] == 10)
        running.close()
    finally:
        broker.kill()


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"broker": "mqtts://h", "ca": "none.pem"}, "mqtt.ca: {folder}/none.pem cannot be read: No such"),
        ({"broker": "mqtts://h", "ca": "text"}, "mqtt.ca: {folder}/text holds no certificate in PEM"),
        ({"broker": "mqtts://h", "ca": "."}, "Is a directory"),
        ({"broker": "mqtts://h", "certificate": "text"}, "expected it together with certificate_key"),
        ({"broker": "mqtts://h", "certificate": "text", "certificate_key": "text"}, "are no pair in PEM"),
        ({"broker": "mqtt://h", "ca": "text"}, "mqtt.ca: found beside mqtt://h; expected a broker mqtts://"),
        ({"broker": "mqtt://h", "user": "u", "password": "text"}, "text has mode 0644; expected 0600"),
        ({"broker": "mqtt://h", "password": "text"}, "expected the key user, too"),
        ({"broker": "mqtt://u:geheim@h"}, "found 'mqtt://u:***@h', expected mqtt://HOST:PORT"),
        (
            {"broker": "mqtt://h", "line_key": "text"},
            "line_key: found {folder}/text, expected a section",
        ),
        ({"broker": "mqtt://h:99999"}, "expected a port from 1 to 65535"),
        ({"broker": "mqtt://h", "topic": "a/#"}, "expected levels such as factory/line3"),
        ({"broker": "mqtt://h", "tpoic": "a"}, "mqtt.tpoic: unknown key; did you mean topic?"),
        ({"broker": "mqtt://h", "decisions": []}, "mqtt.decisions: found nothing in it"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, keys: dict[str, Any], wanted: str) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\n"
    )
    (tmp_path / "text").write_text("no PEM at all\n")
    (tmp_path / "text").chmod(0o644)
    said = complaint(write_plant(tmp_path, mqtt=keys))
    assert wanted.format(folder=tmp_path) in said and "geheim" not in said
