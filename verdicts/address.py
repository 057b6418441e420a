"""Addresses of a line: ``tcp://HOST:PORT`` and ``ipc://PATH``, read in one way on both ends."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import zmq

_LONGEST_PATH: Final = 107  # bytes: sockaddr_un holds 108, the last of them zero
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?", re.ASCII)
_EVERYWHERE: Final = frozenset({"*", "0.0.0.0", "[::]"})


class Tcp(NamedTuple):
    """A port of this machine or another; an IPv6 host stands in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def overlaps(self, other: "Address") -> bool:
        """Whether both cannot be bound at once."""
        if not isinstance(other, Tcp) or self.port != other.port:
            return False
        hosts = {_plain(self.host), _plain(other.host)}
        return len(hosts) == 1 or bool(hosts & _EVERYWHERE)


class Ipc(NamedTuple):
    """A socket file of this machine."""

    path: str

    def __str__(self) -> str:
        return f"ipc://{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return True

    def overlaps(self, other: "Address") -> bool:
        """Whether both cannot be bound at once."""
        return isinstance(other, Ipc) and os.path.realpath(self.path) == os.path.realpath(other.path)


Address = Tcp | Ipc


def parse_address(text: str) -> Address:
    """Read an address; libzmq would take ports modulo 65536 and cut paths short.

    Raises:
        ValueError: it is invalid; the text says what was expected.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "ipc":
        return _ipc(rest)
    if not separator or scheme != "tcp":
        raise ValueError("expected tcp://HOST:PORT or ipc://PATH")
    host, colon, port = rest.rpartition(":")
    if not colon or not _is_host(host):
        wanted = "an IPv6 host in brackets" if ":" in host else "a host's name or number"
        raise ValueError(f"expected tcp://HOST:PORT, with {wanted}")
    if not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ValueError("expected a port from 1 to 65535")
    return Tcp(host, int(port))


def from_this_machine(text: str) -> str:
    """Give the address to connect to from this machine: the loopback for one that means every interface.

    Raises:
        ValueError: it is invalid.
    """
    address = parse_address(text)
    if isinstance(address, Tcp) and address.host in _EVERYWHERE:
        return str(address._replace(host="127.0.0.1"))
    return text


def address_from(folder: Path, text: str) -> str:
    """Make the path of an ``ipc://`` address relative to a folder; give other addresses as they are.

    Raises:
        ValueError: it is invalid, or its path is then too long.
    """
    address = parse_address(text)
    return str(_ipc(str(folder / address.path))) if isinstance(address, Ipc) else text


def allow_ipv6(socket: "zmq.Socket[Any]", text: str) -> None:
    """Let a socket that is about to be bound or connected speak IPv6, if its address does.

    Not for other addresses: libzmq would look for a name's IPv6 address first, and for ``localhost`` find one
    on which the line does not listen.
    """
    if text.startswith("tcp://["):
        socket.ipv6 = True


def _ipc(path: str) -> Ipc:
    if not path or "\0" in path or path[0] in "@*":
        raise ValueError("expected ipc:// and the path of a socket file")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"expected ipc:// and a path of at most {_LONGEST_PATH} bytes")
    return Ipc(path)


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    if re.fullmatch(r"[0-9.]+", host, re.ASCII):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return True
    return host == "*" or _NAME.fullmatch(host) is not None


def _plain(host: str) -> str:
    """Write a host in one way, however it was spelled."""
    if host == "localhost":
        return "127.0.0.1"
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    return host
