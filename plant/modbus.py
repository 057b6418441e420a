"""What a Modbus peer's silence or nonsense is called in one line."""


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
