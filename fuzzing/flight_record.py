"""What a fuzzing process is doing, written where its death cannot lose it."""

import mmap
import struct
from pathlib import Path

_HEAD = struct.Struct("<QI")  # inputs begun, bytes of the present one
_MOST_BYTES = 1 << 20


class FlightRecord:
    """A file, mapped by the process that runs inputs and by the one that watches it.

    However the first one ends or hangs, the second knows how far it came and by which input.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it."""
        path.touch()
        with path.open("r+b") as file:
            file.truncate(_HEAD.size + _MOST_BYTES)
            self._memory = mmap.mmap(file.fileno(), 0)

    def begin(self, data: bytes) -> None:
        """Note the input that is about to be run."""
        begun, _ = _HEAD.unpack_from(self._memory)
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, 0, begun + 1, len(data))

    @property
    def begun(self) -> int:
        """How many inputs were begun."""
        begun: int = _HEAD.unpack_from(self._memory)[0]
        return begun

    @property
    def present(self) -> bytes:
        """The input that was begun last."""
        return self._memory[_HEAD.size : _HEAD.size + _HEAD.unpack_from(self._memory)[1]]

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()
