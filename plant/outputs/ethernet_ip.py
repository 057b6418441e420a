"""Writes verdicts into a tag of a Rockwell controller by EtherNet/IP; the words are those of Modbus."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from struct import unpack_from
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field

from foundation.errors import printable
from plant.deadline import hanging_up_after
from plant.outputs import LineNow, PeerFailed
from plant.outputs.handshake import Handshake, WrittenPlc
from plant.section import whole_port

if TYPE_CHECKING:
    from pylogix import PLC

_CONTROLLER: Final = re.compile(r"tcp://([A-Za-z0-9_.-]+)(?::([0-9]+))?", re.ASCII)
_PORT: Final = 44818
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,39}"
_TAG: Final = re.compile(rf"(?:Program:{_NAME}\.)?{_NAME}", re.ASCII)
_INT: Final = 0xC3
_HEADER: Final = 24
_DONE: Final = "Success"
_NO_ANSWER: Final = ("Connection failure", "Register session failed", "Forward open failed")


def _controller(text: str) -> str:
    match = _CONTROLLER.fullmatch(text)
    if match is None:
        raise ValueError("expected the address of a controller such as tcp://192.168.0.10")
    whole_port(match[2] or str(_PORT))
    return text


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise ValueError("expected the name of an array of INT, such as Reg or Program:MainProgram.Reg")
    return text


class EthernetIpConfig(Handshake):
    """A ControlLogix or CompactLogix controller. EtherNet/IP has no passwords."""

    address: Annotated[str, AfterValidator(_controller)]
    slot: Annotated[int, Field(ge=0, le=255)] = Field(default=0, description="of the controller in its rack")
    tag: Annotated[str, AfterValidator(_tag)] = Field(
        default="Reg", description="array of INT whose elements are the registers"
    )


class EthernetIp(WrittenPlc):
    """A client of the controller."""

    def __init__(self, config: EthernetIpConfig, cameras: Sequence[str], now: Callable[[], LineNow]) -> None:
        super().__init__(config.address, config, cameras, now)
        self._config = config
        self._plc: PLC | None = None

    def _open(self) -> None:
        from pylogix import PLC

        match = _CONTROLLER.fullmatch(self._address)
        assert match is not None
        self._plc = PLC(
            match[1], slot=self._config.slot, timeout=self._timeout_s, port=int(match[2] or _PORT)
        )
        self._plc.conn.receive_data = partial(_received, self._plc.conn)

    def close(self) -> None:
        plc, self._plc = self._plc, None
        if plc is not None:
            plc.conn.Socket.close()  # without the good-byes that somebody may not answer

    def _acknowledged(self) -> int:
        plc, element = self._plc, self._element(self._config.acknowledge)
        assert plc is not None
        value = self._asked(lambda: plc.Read(element, datatype=_INT), element).Value
        if not isinstance(value, int):
            raise PeerFailed(f"{self._address}: {element} is no INT")
        return value

    def _write(self, offset: int, words: list[int]) -> None:
        plc, element = self._plc, self._element(self._config.register_ + offset)
        assert plc is not None
        signed = [word - 0x10000 if word & 0x8000 else word for word in words]
        self._asked(lambda: plc.Write(element, signed, datatype=_INT), element)

    def _element(self, register: int) -> str:
        return f"{self._config.tag}[{register}]"

    def _asked(self, ask: Callable[[], Any], element: str) -> Any:
        plc = self._plc
        assert plc is not None
        try:
            with hanging_up_after(self._timeout_s, lambda: plc.conn.Socket):
                answer = ask()
        except TimeoutError as error:
            raise PeerFailed(f"{self._address}: does not answer for {self._timeout_s:g} s") from error
        except OSError as error:
            raise PeerFailed(f"{self._address}: {error.strerror or error}") from error
        except Exception as error:  # whatever nonsense brings about in the library
            raise PeerFailed(f"{self._address}: answers what is no EtherNet/IP") from error
        status = answer.Status
        if status in _NO_ANSWER:
            raise PeerFailed(f"{self._address}: does not answer as a controller does")
        if status != _DONE:
            why = status.strerror if isinstance(status, OSError) and status.strerror else status
            raise PeerFailed(f"{self._address}: {element}: {printable(str(why))}")
        return answer


def _received(connection: Any) -> bytes | None:
    """Receive one packet; None without a whole one. The library's own never ends where a peer breaks off."""
    data = b""
    try:
        while len(data) < _HEADER or len(data) < _HEADER + unpack_from("<H", data, 2)[0]:
            part = connection.Socket.recv(4096)
            if not part:
                return None
            data += part
    except OSError:
        return None
    return data
