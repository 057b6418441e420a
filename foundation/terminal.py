import io
import os
import stat
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def accept_any_text() -> None:
    """Escape what the output's encoding does not have, such as names that are no UTF-8: never fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_unread() -> None:
    """From now on drop output that goes to a pipe which nobody reads any more, instead of failing."""
    sys.stdout = _to_pipe(sys.stdout)
    sys.stderr = _to_pipe(sys.stderr)


def _to_pipe(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    below = getattr(stream.buffer, "raw", stream.buffer)  # without PYTHONUNBUFFERED there is a buffer between
    if not isinstance(below, io.FileIO):
        return stream
    mode = os.fstat(stream.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stream
    stream.flush()
    pipe = _Pipe(stream.fileno())
    return io.TextIOWrapper(
        pipe if below is stream.buffer else io.BufferedWriter(pipe),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Pipe(io.RawIOBase):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: "ReadableBuffer") -> int:
        try:
            return os.write(self._descriptor, content)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)
            return memoryview(content).nbytes
