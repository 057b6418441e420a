"""The table of outputs: an output that is new is one module and one line here."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final, NamedTuple

from foundation.errors import InputError
from plant.config import Plant
from plant.outputs import LineNow, Output


class _Kind(NamedTuple):
    package: str | None
    """What has to be installed for it."""
    make: Callable[[Plant, Callable[[], LineNow]], Output]
    extra: str = "plant"
    """With which it comes."""


def _mqtt(plant: Plant, _now: Callable[[], LineNow]) -> Output:
    from plant.outputs.mqtt import Mqtt

    assert plant.config.mqtt is not None
    client_id = f"{plant.line.name}.{plant.places['mqtt'].subscriber}"
    return Mqtt(plant.file, plant.config.mqtt, plant.line.name, client_id)


def _webhook(plant: Plant, _now: Callable[[], LineNow]) -> Output:
    from plant.outputs.webhook import Webhook

    assert plant.config.webhook is not None
    return Webhook(plant.file, plant.config.webhook)


def _modbus_client(plant: Plant, now: Callable[[], LineNow]) -> Output:
    from plant.outputs.modbus_client import ModbusClient

    assert plant.config.modbus_client is not None
    return ModbusClient(plant.config.modbus_client, plant.line.cameras, now)


def _ethernet_ip(plant: Plant, now: Callable[[], LineNow]) -> Output:
    from plant.outputs.ethernet_ip import EthernetIp

    assert plant.config.ethernet_ip is not None
    return EthernetIp(plant.config.ethernet_ip, plant.line.cameras, now)


def _modbus_server(plant: Plant, now: Callable[[], LineNow]) -> Output:
    from plant.outputs.modbus_server import ModbusServer

    assert plant.config.modbus_server is not None
    return ModbusServer(plant.config.modbus_server, plant.line.cameras, now)


def _opcua(plant: Plant, _now: Callable[[], LineNow]) -> Output:
    from plant.outputs.opcua.server import OpcuaServer

    return OpcuaServer(plant)


OUTPUTS: Final[Mapping[str, _Kind]] = {
    "mqtt": _Kind("paho.mqtt", _mqtt),
    "webhook": _Kind(None, _webhook),
    "modbus_client": _Kind("pymodbus", _modbus_client),
    "modbus_server": _Kind("pymodbus", _modbus_server),
    "ethernet_ip": _Kind("pylogix", _ethernet_ip),
    "opcua": _Kind("asyncua", _opcua, extra="opcua"),
}


def open_outputs(plant: Plant, now: Callable[[], LineNow]) -> dict[str, Output]:
    """Make the outputs that the config names; none is connected yet.

    Raises:
        InputError: a package is missing, or a file that the config names is of no use.
    """
    for name in plant.config.outputs():
        require(OUTPUTS[name].package, name, OUTPUTS[name].extra)
    return {name: OUTPUTS[name].make(plant, now) for name in plant.config.outputs()}


def require(package: str | None, key: str, extra: str = "plant") -> None:
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
            f"{key}: needs {package}, which is not installed here; expected the extra {extra}: "
            f"pip install 'inspectd[{extra}]'"
        )
