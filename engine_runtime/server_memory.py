"""Memory that a line shares with an inference server on its machine, for frames and answers."""

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

from engine_runtime.engine import FRAMES, SCORE
from engine_runtime.manifest import Manifest
from foundation.errors import EngineFailed
from pictures.frames import Frame

_PLACE: Final = Path("/dev/shm")
"""Where ``shm_open`` finds it, of this process and of the server."""
_PAGE: Final = 4096
_NOTHING: Final = 0xFF
"""As all bytes of a float it is NaN: what the server did not write is never a score."""
_FLOATS: Final[Mapping[str, type[np.floating[Any]]]] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


class ServerMemory:
    """One region with a place for the frames of a batch, and one for each output.

    It has a name only until the server has mapped it: nothing is left over of a line that is killed. Memory
    into which a server may still write late is never used again; its owner makes another one.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Allocate it.

        Args:
            manifest: says how much room the largest batch and its answers take.

        Raises:
            OSError: there is not enough of it.
        """
        cells = {name: 1 if name == SCORE else math.prod(manifest.map_size) for name in manifest.outputs}
        room = {FRAMES: manifest.max_batch * math.prod(manifest.input_size) * 3}
        room |= {name: manifest.max_batch * count * 8 for name, count in cells.items()}
        self._room: dict[str, slice] = {}
        length = 0
        for name, size in room.items():
            self._room[name] = slice(length, length + size)
            length += -(-size // _PAGE) * _PAGE
        self.name = f"inspectd-{os.getpid()}-{token_hex(8)}"
        descriptor = os.open(_PLACE / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # All of it now: memory that is missing at the first touch would kill the process that touches it.
            os.posix_fallocate(descriptor, 0, length)
            self._bytes: NDArray[np.uint8] = np.frombuffer(mmap.mmap(descriptor, length), np.uint8)
        except OSError:
            (_PLACE / self.name).unlink()
            raise
        finally:
            os.close(descriptor)

    def register(self, client: triton.InferenceServerClient, timeout_s: float) -> None:
        """Have a server map it.

        Raises:
            InferenceServerException: the server is away, is on another machine, or shares no memory.
        """
        try:
            client.register_system_shared_memory(
                self.name, f"/{self.name}", len(self._bytes), client_timeout=timeout_s
            )
        finally:
            (_PLACE / self.name).unlink()

    def is_known(self, client: triton.InferenceServerClient, timeout_s: float) -> bool:
        """Tell whether the server still has it: one that was started anew has not.

        Raises:
            InferenceServerException: the server is away.
        """
        found = client.get_system_shared_memory_status(client_timeout=timeout_s)
        return self.name in found.regions

    def frames(self, batch: Frame) -> triton.InferInput:
        """Lay out frames, N×H×W×3 uint8, and give the input that says where they lie."""
        place = self._room[FRAMES]
        self._bytes[place][: batch.size].reshape(batch.shape)[...] = batch
        wanted = triton.InferInput(FRAMES, list(batch.shape), "UINT8")
        wanted.set_shared_memory(self.name, batch.size, place.start)
        return wanted

    def outputs(self, names: Sequence[str]) -> list[triton.InferRequestedOutput]:
        """Say where answers are to be written; what lay there is gone."""
        asked = []
        for name in names:
            place = self._room[name]
            self._bytes[place] = _NOTHING
            output = triton.InferRequestedOutput(name)
            output.set_shared_memory(self.name, place.stop - place.start, place.start)
            asked.append(output)
        return asked

    def answer(self, result: triton.InferResult, name: str) -> NDArray[np.floating[Any]]:
        """Read an output; a view that holds until the next frames are laid out.

        Raises:
            EngineFailed: the server says nothing of it, or something that has no room here.
        """
        told = result.get_output(name)
        kind = None if told is None else _FLOATS.get(told.datatype)
        if told is None or kind is None:
            raise EngineFailed(f"gives {name} as {told and told.datatype.lower()}, expected floats")
        values = self._bytes[self._room[name]].view(kind)
        count = math.prod(told.shape)
        if not 0 <= count <= len(values):
            raise EngineFailed(f"gives {name} of shape {tuple(told.shape)}, for which there is no room")
        return values[:count].reshape(tuple(told.shape))
