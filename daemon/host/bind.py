import errno
import os
import socket as sockets
import stat
from pathlib import Path
from typing import Any

import zmq

from foundation.errors import InputError, Unavailable
from verdicts.address import Ipc, allow_ipv6, parse_address

# Its interface is not up yet; a descriptor may become free.
_MAY_PASS = {zmq.EADDRNOTAVAIL, errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class AddressInUse(Unavailable):
    """Something listens on an address already."""


def bind(socket: "zmq.Socket[Any]", address: str, key: str) -> None:
    """Bind a socket; the file of an ``ipc://`` address is made for owner and group alone.

    Args:
        socket: not bound yet.
        address: such as ``tcp://127.0.0.1:5560``.
        key: of the config, under which the address stands there.

    Raises:
        AddressInUse: something listens there already.
        InputError: the address cannot be bound.
    """
    parsed = parse_address(address)
    if isinstance(parsed, Ipc):
        _make_way(Path(parsed.path), key)
    allow_ipv6(socket, address)
    # The file's mode has to be right from the first moment on; other threads' files would only be stricter.
    before = os.umask(0o117) if isinstance(parsed, Ipc) else None
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise _in_use(key, address) from error
        refused = Unavailable if error.errno in _MAY_PASS else InputError
        raise refused(f"{key}: {address} cannot be bound: {_why(error)}") from error
    finally:
        if before is not None:
            os.umask(before)


def _make_way(path: Path, key: str) -> None:
    """Refuse a path where no socket file can be made. libzmq would remove whatever lies there."""
    address = Ipc(str(path))
    if not path.parent.is_dir():
        raise InputError(f"{key}: {address} cannot be bound: there is no folder {path.parent}")
    try:
        found = path.lstat()
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise InputError(
                f"{key}: {address} cannot be bound: the folder {path.parent} is not writable"
            ) from None
        return
    except OSError as error:
        raise InputError(f"{key}: {address} cannot be bound: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise InputError(
            f"{key}: {address} cannot be bound: {path} is a file or folder, expected no such file"
        )
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left by a process that was killed
        except OSError as error:
            raise InputError(f"{key}: {address} cannot be bound: {error.strerror}") from error
    raise _in_use(key, str(address))


def _in_use(key: str, address: str) -> AddressInUse:
    return AddressInUse(f"{key}: {address} is in use; does another inspectd run?")


def _why(error: zmq.ZMQError) -> str:
    if error.errno in {errno.ENODEV, errno.EADDRNOTAVAIL}:
        return "this machine has no such address"
    return str(error.strerror)
