"""Verdicts, health and state to an MQTT 5 broker (docs/plant.md has topics and payload)."""

import json
import re
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, field_validator

from foundation.errors import InputError, refused_by_system
from foundation.secret_file import read_secret
from foundation.tls import reason
from lines.section import File
from plant.outputs import Delivery, LineNow, PeerFailed
from plant.section import Duration, OutputSection, seconds, whole_port
from plant.tls import trusting
from verdicts.health import Health
from verdicts.message import encode

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_KEEPALIVE_S: Final = 10
_MOST_IN_FLIGHT: Final = 20
_BROKER: Final = re.compile(r"(mqtts?)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]+))?/?", re.ASCII)
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
OFFLINE: Final = "offline"
"""The last word of this process on the topic of the state, or the broker's in its place."""


def _topic(text: str) -> str:
    if not 1 <= len(text.encode()) <= 1000 or re.search(r"[+#\0]|^/|//|/$", text) or text.startswith("$"):
        raise ValueError("expected levels such as factory/line3, without + and #")
    return text


class MqttConfig(OutputSection):
    """A broker of MQTT 5."""

    broker: str = Field(description="mqtt://HOST:PORT, or mqtts:// with TLS")
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the password, or credential:NAME of the service"
    )
    ca: File | None = Field(default=None, description="certificates that may have signed the broker's, PEM")
    certificate: File | None = Field(default=None, description="to show to the broker, PEM")
    certificate_key: File | None = Field(default=None, description="its private key, PEM")
    timeout: Duration = Field(default="10 s", description="a broker that takes longer to answer is away")
    topic: Annotated[str, AfterValidator(_topic)] | None = Field(
        default=None, description="what all topics begin with; inspectd/LINE when absent"
    )

    @field_validator("broker")
    @classmethod
    def _is_broker(cls, text: str) -> str:
        match = _BROKER.fullmatch(text)
        if match is None:
            raise ValueError("expected mqtt://HOST:PORT or mqtts://HOST:PORT; user and password are keys")
        whole_port(match[3] or "1883")
        return text


class Mqtt:
    """A client of the broker; paho's own threads, queues and reconnections are not used."""

    most_at_once = 100

    def __init__(self, file: Path, config: MqttConfig, line: str, client_id: str) -> None:
        """Read passwords and certificates; does not connect yet.

        Raises:
            InputError: one of them is of no use, or contradicts the broker's address.
        """
        match = _BROKER.fullmatch(config.broker)
        assert match is not None
        self._address = config.broker
        self._host, self._port = match[2].strip("[]"), int(match[3] or _PORTS[match[1]])
        self._timeout_s = seconds(config.timeout)
        self._user = config.user
        self._topic = config.topic or f"inspectd/{line}"
        self._client_id = client_id
        if config.password is not None and config.user is None:
            raise InputError(f"{file}: mqtt.password: found one without a user; expected the key user, too")
        self._password = (
            None if config.password is None else read_secret(file, "mqtt.password", config.password)
        )
        self._tls = _tls(file, config) if match[1] == "mqtts" else None
        if self._tls is None:
            for key in ("ca", "certificate", "certificate_key"):
                if getattr(config, key) is not None:
                    raise InputError(
                        f"{file}: mqtt.{key}: found beside {config.broker}; expected a broker mqtts://, "
                        "which speaks TLS"
                    )
        self._client: Client | None = None
        self._trouble: str | None = None
        self._connected = False
        self._unconfirmed: set[int] = set()
        self._most_in_flight = _MOST_IN_FLIGHT
        self._told: tuple[str, Health | None] = ("", None)

    def connect(self) -> bool:
        """Connect and be let in."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.close()
        client = Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout_s
        client.max_inflight_messages_set(_MOST_IN_FLIGHT)
        client.username_pw_set(self._user, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.will_set(f"{self._topic}/state", OFFLINE, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client, self._trouble, self._connected = client, None, False
        self._unconfirmed.clear()
        self._told = ("", None)
        try:
            client.connect(self._host, self._port, keepalive=_KEEPALIVE_S, clean_start=True)
        except (OSError, ValueError) as error:
            raise PeerFailed(f"{self._address}: {self._why(error)}") from error
        self._loop_until(lambda: self._connected, "does not answer")
        return True

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Publish with QoS 1, and wait until the broker has confirmed all."""
        for delivery in deliveries:
            self._loop_until(
                lambda: len(self._unconfirmed) < self._most_in_flight, "does not confirm what was sent"
            )
            verdict = delivery.verdict
            self._publish(f"verdict/{verdict.camera}/{verdict.decision}", delivery.content(), qos=1)
        self._loop_until(lambda: not self._unconfirmed, "does not confirm what was sent")

    def tell(self, line: LineNow) -> None:
        """Publish state and health, retained, when they have changed; keep the connection alive."""
        state, health = self._told
        if line.state != state:
            self._publish("state", line.state, qos=1, retain=True)
        if line.health is not None and line.health is not health:
            self._publish("health", json.loads(encode(line.health)[1]), qos=0, retain=True)
        self._told = (line.state, line.health)
        self._loop(0.0)

    def close(self) -> None:
        """Say that this process is offline, and leave."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._connected and self._trouble is None:
            try:
                client.publish(f"{self._topic}/state", OFFLINE, qos=1, retain=True)
                client.loop(0.1)
                client.disconnect()
                client.loop(0.1)
            except (OSError, ValueError):
                pass  # then the broker says it
        self._connected = False
        # paho closes its socket with its last reference; a callback would keep this object alive with it.
        client.on_connect = client.on_disconnect = client.on_publish = None

    def _publish(self, topic: str, content: object, *, qos: int, retain: bool = False) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        assert self._client is not None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.PayloadFormatIndicator = 1
        if not isinstance(content, str):
            properties.ContentType = "application/json"
            content = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            sent = self._client.publish(
                f"{self._topic}/{topic}", content, qos=qos, retain=retain, properties=properties
            )
        except ValueError as error:
            raise PeerFailed(f"{self._address}: {error}") from error
        if qos:
            self._unconfirmed.add(sent.mid)

    def _loop_until(self, done: Any, trouble: str) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        while not done():
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise PeerFailed(f"{self._address}: {trouble} for {self._timeout_s:g} s")
            self._loop(min(left_s, 0.5))
        self._raise_trouble()

    def _loop(self, timeout_s: float) -> None:
        assert self._client is not None
        try:
            code = self._client.loop(timeout_s)
        except (OSError, ValueError) as error:
            raise PeerFailed(f"{self._address}: {self._why(error)}") from error
        self._raise_trouble()
        if code != 0:
            from paho.mqtt.client import error_string

            raise PeerFailed(f"{self._address}: {error_string(code).rstrip('.')}")

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise PeerFailed(f"{self._address}: {self._trouble}")

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"does not answer for {self._timeout_s:g} s"
        if isinstance(error, ssl.SSLError):
            return reason(error)
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return str(error)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._trouble = f"refuses the connection: {code}"
            return
        most = getattr(properties, "ReceiveMaximum", _MOST_IN_FLIGHT)
        self._most_in_flight = min(_MOST_IN_FLIGHT, most)
        self._connected = True

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if self._trouble is None:
            unknown = code.value == 128  # what paho calls an end without a word
            self._trouble = "ended the connection" + ("" if unknown else f": {code}")

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self._trouble = f"does not take what was sent: {code}"
        self._unconfirmed.discard(mid)


def _tls(file: Path, config: MqttConfig) -> ssl.SSLContext:
    context = trusting(file, "mqtt.ca", config.ca)
    if (config.certificate is None) != (config.certificate_key is None):
        raise InputError(f"{file}: mqtt.certificate: expected it together with certificate_key, or neither")
    if config.certificate is not None:
        try:
            context.load_cert_chain(config.certificate, config.certificate_key, password=_no_password)
        except (OSError, ValueError) as error:
            where = f"{file}: mqtt.certificate: {config.certificate} and {config.certificate_key}"
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                raise refused_by_system(f"{where}: cannot be read: {error.strerror}", error) from error
            raise InputError(f"{where}: are no pair in PEM") from error
    return context


def _no_password() -> str:
    """Refuse a key with a password, instead of asking for it on the terminal."""
    raise ValueError("has a password")
