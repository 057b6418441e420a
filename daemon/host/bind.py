import errno
import os
from typing import Any

import zmq

from foundation.errors import InputError, Unavailable

# Another process has the address, or its interface is not up yet; a descriptor may become free.
_MAY_PASS = {zmq.EADDRINUSE, zmq.EADDRNOTAVAIL, errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def bind(socket: "zmq.Socket[Any]", address: str, key: str) -> None:
    """Bind a socket; the file of an ``ipc://`` address is made for owner and group alone.

    Args:
        socket: not bound yet.
        address: such as ``tcp://127.0.0.1:5560``.
        key: of the config, under which the address stands there.

    Raises:
        InputError: the address is in use or cannot be bound.
    """
    # The file's mode has to be right from the first moment on; other threads' files would only be stricter.
    before = os.umask(0o117) if address.startswith("ipc://") else None
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        in_use = error.errno == zmq.EADDRINUSE
        reason = "in use; does another inspectd run?" if in_use else f"cannot be bound: {error.strerror}"
        refused = Unavailable if error.errno in _MAY_PASS else InputError
        raise refused(f"{key}: {address} is {reason}") from error
    finally:
        if before is not None:
            os.umask(before)
