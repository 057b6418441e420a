"""The table of outputs: an output that is new is one module and one line here."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final, NamedTuple

from foundation.errors import InputError
from plant.config import Plant
from plant.outputs import Output


class _Kind(NamedTuple):
    package: str | None
    """What has to be installed for it."""
    make: Callable[[Plant], Output]


def _mqtt(plant: Plant) -> Output:
    from plant.outputs.mqtt import Mqtt

    assert plant.config.mqtt is not None
    client_id = f"{plant.line.name}.{plant.places['mqtt'].subscriber}"
    return Mqtt(plant.file, plant.config.mqtt, plant.line.name, client_id)


OUTPUTS: Final[Mapping[str, _Kind]] = {
    "mqtt": _Kind("paho.mqtt", _mqtt),
}


def open_outputs(plant: Plant) -> dict[str, Output]:
    """Make the outputs that the config names; none is connected yet.

    Raises:
        InputError: a package is missing, or a file that the config names is of no use.
    """
    for name in plant.config.outputs():
        require(OUTPUTS[name].package, name)
    return {name: OUTPUTS[name].make(plant) for name in plant.config.outputs()}


def require(package: str | None, key: str) -> None:
    """Say in one line which package is missing, and how it comes.

    Raises:
        InputError: it is not installed.
    """
    try:
        missing = package is not None and find_spec(package) is None
    except ModuleNotFoundError:  # of paho.mqtt, paho itself
        missing = True
    if missing:
        raise InputError(
            f"{key}: needs {package}, which is not installed here; expected the extra plant: "
            "pip install 'inspectd[plant]'"
        )
