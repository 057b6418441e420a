from collections.abc import Iterator

from daemon.capture.drivers import Trigger
from daemon.capture.triggers.triggers import Triggers


def open_input(trigger: Trigger, triggers: Triggers) -> Iterator[int] | None:
    """Open the input that a trigger names; its library is imported only here.

    Args:
        trigger: from the config.
        triggers: told of what is wrong with the input.

    Returns:
        The times of its edges, as ``time.monotonic_ns()``, for ever; None where triggers come otherwise.

    Raises:
        InputError: there is no such input.
    """
    match trigger.by:
        case "gpio":
            from daemon.capture.triggers.gpio import GpioInput

            return GpioInput(trigger).edges()
        case "modbus":
            from daemon.capture.triggers.modbus import ModbusInput

            return ModbusInput(trigger, triggers.tell).edges()
    return None
