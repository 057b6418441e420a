"""The config of the plant's side of one line: YAML, every mistake named by file, line and key."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from foundation.errors import InputError
from foundation.yaml_model import read_model
from lines.line_config import LineConfig, read_line
from plant.listener import MetricsConfig
from plant.outputs.mqtt import MqttConfig
from plant.section import File, Name, OutputSection, Seconds, Section
from verdicts import CurveKeys

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
    silence: Seconds = Field(default="3 s", description="without health, until the line counts as silent")
    metrics: MetricsConfig | None = Field(default=None, description="for Prometheus and probes; read-only")
    mqtt: MqttConfig | None = Field(default=None, description="verdicts and health to an MQTT 5 broker")

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
    config = read_model(path, A_CONFIG, PlantConfig)
    line = read_line(config.line, config.key, config.server_key)
    outputs = config.outputs()
    if outputs and line.control is None:
        raise InputError(
            f"{config.line}: control: missing; expected it here: {', '.join(outputs)} of {path} need a line "
            "that keeps their place in its journal"
        )
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
