"""The config of the plant's side of one line: YAML, every mistake named by file, line and key."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field

from foundation.errors import InputError, located
from foundation.yaml_model import read_model
from lines.line_config import LineConfig, read_line
from lines.section import File, Name, Section
from plant.alarms.config import AlarmsConfig
from plant.gate.config import BeltConfig, GateConfig, peer_of
from plant.http_listener import MetricsConfig
from plant.outputs.ethernet_ip import EthernetIpConfig
from plant.outputs.modbus_client import ModbusClientConfig
from plant.outputs.modbus_server import ModbusServerConfig
from plant.outputs.mqtt import MqttConfig
from plant.outputs.opcua.config import PORT as OPCUA_PORT
from plant.outputs.opcua.config import OpcuaConfig
from plant.outputs.registers import WORDS
from plant.outputs.webhook import WebhookConfig
from plant.section import Duration, OutputSection, quantity
from verdicts import CurveKeys

_ANY_HOST: Final = {"0.0.0.0", "::"}
A_CONFIG: Final = "the YAML config of inspectd-plant"


class PlantConfig(Section):
    """One line in its plant. Relative paths count from this file's folder."""

    line: File = Field(description="the line's own config")
    key: File | None = Field(
        default=None, description="secret key to connect with, where the line has a section curve"
    )
    server_key: File | None = Field(default=None, description="the line's public key, likewise")
    name: Name = Field(default="plant", description="subscribers are called NAME.OUTPUT")
    state: File | None = Field(
        default=None,
        description="folder of own files; StateDirectory under systemd, else plant beside this file",
    )
    silence: Duration = Field(default="3 s", description="without health, until the line counts as silent")
    metrics: MetricsConfig | None = Field(default=None, description="for Prometheus and probes; read-only")
    belt: BeltConfig | None = Field(
        default=None, description="where the belt is; without it the clock alone counts"
    )
    gates: dict[Name, GateConfig] = Field(default={}, description="each throws out what has no pass")
    alarms: AlarmsConfig | None = Field(default=None, description="who is told when something is wrong")
    webhook: WebhookConfig | None = Field(default=None, description="verdicts to a web address")
    modbus_client: ModbusClientConfig | None = Field(
        default=None, description="verdicts into a PLC's registers"
    )
    modbus_server: ModbusServerConfig | None = Field(default=None, description="registers that a PLC polls")
    ethernet_ip: EthernetIpConfig | None = Field(
        default=None, description="verdicts into a tag of a Rockwell controller"
    )
    mqtt: MqttConfig | None = Field(default=None, description="verdicts and health to an MQTT 5 broker")
    opcua: OpcuaConfig | None = Field(default=None, description="a server of OPC UA for SCADA systems")

    def outputs(self) -> Mapping[str, OutputSection]:
        """Give the sections of the outputs to which verdicts are delivered, by name."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: section for name, section in sections.items() if isinstance(section, OutputSection)}


@dataclass(frozen=True)
class Place:
    """Where the line keeps what an output has not had yet.

    Attributes:
        subscriber: name of the place.
        curve: with which keys one connects for it; None without encryption.
    """

    subscriber: str
    curve: CurveKeys | None


@dataclass(frozen=True)
class Plant:
    """What ``inspectd-plant`` is to do.

    Attributes:
        file: the config, for what is said about it.
        config: what it says.
        line: the line's own config, as far as it concerns others.
        places: by name of the output.
        state: folder of own files.
    """

    file: Path
    config: PlantConfig
    line: LineConfig
    places: Mapping[str, Place]
    state: Path


def load_plant(path: Path) -> Plant:
    """Read and check the config and the line's.

    Raises:
        InputError: one of them is wrong; the text names file, line, key, found and expected.
    """
    config, _ = read_model(path, A_CONFIG, PlantConfig)
    with located(f"{path}: line"):
        line = read_line(config.line, config.key, config.server_key)
    outputs = config.outputs()
    if outputs and line.control is None:
        raise InputError(
            f"{config.line}: control: missing; expected it here: {', '.join(outputs)} of {path} need a line "
            "that keeps their place in its journal"
        )
    _check_keys(path, config, line)
    _check_gates(path, config, line)
    _check_registers(path, config)
    _check_listeners(path, config)
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    state = config.state or (Path(given) if given else path.absolute().parent / "plant")
    return Plant(path, config, line, _places(path, config, line), state)


def _places(path: Path, config: PlantConfig, line: LineConfig) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for output, section in config.outputs().items():
        curve, name = line.curve, section.subscriber or f"{config.name}.{output}"
        if curve is not None:
            key = section.line_key or config.key
            assert key is not None and config.server_key is not None  # else there is no curve
            # The line gives a key one place, under the name that it has among the line's clients.
            name = section.subscriber or key.name.removesuffix(".key_secret")
            try:
                curve = CurveKeys.read(key, config.server_key)
            except ValueError as error:
                raise InputError(f"{path}: {output}.line_key: {error}") from error
        for other, place in places.items():
            if place.subscriber == name:
                wanted = "a line_key of its own" if curve else "another name"
                raise InputError(
                    f"{path}: {output}.subscriber: found {name}, which {other} has; expected {wanted}, as "
                    "each output has its own place in the journal"
                )
        places[output] = Place(name, curve)
    return places


def _check_keys(path: Path, config: PlantConfig, line: LineConfig) -> None:
    """Refuse keys of a line that encrypts nothing: whoever gave them counts on it."""
    if line.curve is not None:
        return
    given = {"key": config.key, "server_key": config.server_key} | {
        f"{output}.line_key": section.line_key for output, section in config.outputs().items()
    }
    for key, file in given.items():
        if file is not None:
            raise InputError(f"{path}: {key}: found {file}, expected a section curve in {line.file}, too")


def _check_listeners(path: Path, config: PlantConfig) -> None:
    """Refuse two servers of this config at one address."""
    taken: list[tuple[str, str, int]] = []
    for name, section in (
        ("metrics", config.metrics),
        ("modbus_server", config.modbus_server),
        ("opcua", config.opcua),
    ):
        if section is None:
            continue
        address = urlsplit(section.listen)
        host, port = address.hostname or "", address.port or OPCUA_PORT
        host = "127.0.0.1" if host == "localhost" else host
        for other, theirs, same in taken:
            if port == same and (host == theirs or {host, theirs} & _ANY_HOST):
                raise InputError(
                    f"{path}: {name}.listen: found {section.listen}, where {other} listens; expected another "
                    "port"
                )
        taken.append((name, host, port))


def _check_gates(path: Path, config: PlantConfig, line: LineConfig) -> None:
    """Refuse gates that do not fit the belt, the line or one another."""
    belt, taken = config.belt, dict[str, str]()
    if belt is not None and not config.gates:
        raise InputError(f"{path}: belt: found one without gates; expected the key gates, too")
    if belt is not None and belt.gpio is not None:
        for pin in (belt.gpio.a, belt.gpio.b):
            taken[f"line {pin} of {belt.gpio.chip}"] = "belt.gpio"
    for name, gate in config.gates.items():
        key = f"{path}: gates.{name}"
        if line.cameras and gate.camera not in line.cameras:
            raise InputError(
                f"{key}.camera: found {gate.camera}, expected one of line {line.name}: "
                f"{', '.join(line.cameras)}"
            )
        unit = gate.way.unit
        if unit == "pulses" and (belt is None or not belt.counts):
            raise InputError(f"{key}.after_pulses: expected the key belt with an encoder to count them")
        if unit != "pulses" and belt is not None and belt.counts:
            raise InputError(
                f"{key}.after: found {gate.after}, expected after_pulses: the belt has an encoder"
            )
        if unit == "m" and belt is None:
            raise InputError(f"{key}.after: found {gate.after}, expected the key belt.speed, or seconds")
        _check_in_time(key, gate, belt, line)
        output = _output_of(gate)
        if output in taken:
            raise InputError(f"{key}.output: {output} is also that of {taken[output]}; expected one for each")
        taken[output] = f"gates.{name}"


def _output_of(gate: GateConfig) -> str:
    output = gate.output
    if output.gpio is not None:
        return f"line {output.gpio.line} of {output.gpio.chip}"
    if output.modbus is not None:
        host, port = peer_of(output.modbus.address)
        return f"coil {output.modbus.coil} of unit {output.modbus.unit} at {host}:{port}"
    return str(output.simulated)


def _check_in_time(key: str, gate: GateConfig, belt: BeltConfig | None, line: LineConfig) -> None:
    """Refuse a gate that lets pass what it does not know, where a part may come before its verdict."""
    if gate.fires != "eject" or gate.way.unit == "pulses":
        return
    way, half = gate.way, gate.length.value / 2
    speed = 1.0
    if way.unit == "m":
        assert belt is not None and belt.speed is not None
        speed = quantity(belt.speed, "m/s").value
    left_s = (way.value - half) / speed
    if left_s * 1000 <= line.deadline_ms:
        raise InputError(
            f"{key}.fires: found eject, and parts are there after {left_s:.3f} s, before the line's "
            f"deadline_ms of {line.deadline_ms:g}; expected fires: pass, a gate further away or a shorter "
            "deadline"
        )


def _check_registers(path: Path, config: PlantConfig) -> None:
    """Refuse an encoder whose registers the verdicts would be written over."""
    client, encoder = config.modbus_client, None if config.belt is None else config.belt.modbus
    if client is None or encoder is None or encoder.kind != "holding":
        return
    if (peer_of(client.address), client.unit) != (peer_of(encoder.address), encoder.unit):
        return
    read = range(encoder.register_, encoder.register_ + encoder.words)
    written = range(client.register_, client.register_ + WORDS)
    if read.start < written.stop and written.start < read.stop:
        raise InputError(
            f"{path}: belt.modbus.register: found {encoder.register_}, which overlaps modbus_client's "
            f"{written.start} to {written.stop - 1}; expected others"
        )
    if client.acknowledge in read:
        raise InputError(
            f"{path}: belt.modbus.register: found {encoder.register_}, which is modbus_client.acknowledge; "
            "expected another"
        )
