"""A time-out for all of a conversation: a socket's own begins anew with each byte that drips in."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def hanging_up_after(seconds: float, connection: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Hang up when what is done meanwhile takes longer.

    Args:
        seconds: how long it may take.
        connection: gives its socket; None while it has none.

    Raises:
        TimeoutError: it took longer; in place of what hanging up brought about.
    """
    expired = threading.Event()

    def hang_up() -> None:
        expired.set()
        found = connection()
        if found is not None:
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if expired.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
