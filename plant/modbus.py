"""What a Modbus peer's silence, refusal or nonsense is called in one line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymodbus.pdu import ModbusPDU


def reason(error: Exception) -> str:
    """Put an error of pymodbus or of the system into plain words."""
    from pymodbus.exceptions import ConnectionException, ModbusIOException

    match error:
        case ConnectionException():
            return "the connection has ended"
        case ModbusIOException():
            return "no answer that is Modbus came in time"
        case OSError(strerror=str(text)):
            return text
        case _:
            return " ".join(str(error).split())


def refusal(answer: "ModbusPDU") -> str:
    """Put an answer that is an error into plain words."""
    from pymodbus.constants import ExcCodes

    code = answer.exception_code
    known = {int(each): each.name.lower().replace("_", " ") for each in ExcCodes}
    return f"exception {code}, {known.get(code, 'which Modbus does not know')}"
