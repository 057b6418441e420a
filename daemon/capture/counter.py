"""How many frames a camera has captured, kept where no death of a process can lose it."""

import contextlib
import glob
import os
import re
import struct
import zlib
from pathlib import Path

from foundation.errors import refused_by_system
from foundation.files import write_whole

_HEAD = struct.Struct("<16s64sQ")  # magic, boot, CRC-32 of both
_MAGIC = b"inspectd count 1"
_COUNT = struct.Struct("<Q")
_LENGTH = _HEAD.size + _COUNT.size
_BOOT = re.compile(rb"[0-9a-f]{1,64}")
_SUFFIX = ".captured"


class CaptureCounter:
    """The number of a camera's last captured frame, shared by its process and the daemon.

    The camera process writes it before it does anything else with a frame. So whoever comes after it (the
    daemon when the camera process died, the next daemon when all died) knows of frames that were captured
    and never announced. It lives in the page cache: it outlives every process, not a loss of power.
    """

    def __init__(self, descriptor: int) -> None:
        """Take over a counter that ``create`` made, by its descriptor."""
        self.descriptor = descriptor
        self._told = 0

    @classmethod
    def create(cls, path: Path | None, boot: str) -> "CaptureCounter":
        """Start counting from 0.

        Args:
            path: the file that keeps the count, replaced when it exists; None: only in memory.
            boot: the daemon's start that the frames belong to, 1 to 64 hexadecimal digits.

        Raises:
            InputError: the file cannot be written.
        """
        head = struct.pack("<16s64s", _MAGIC, boot.encode())
        content = head + struct.pack("<Q", zlib.crc32(head)) + _COUNT.pack(0)
        if path is None:
            descriptor = os.memfd_create("inspectd-captured")
            os.write(descriptor, content)
            return cls(descriptor)
        try:
            write_whole(path, content)
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise refused_by_system(f"{path}: cannot be written: {error.strerror}", error) from error

    @property
    def captured(self) -> int:
        """Number of the last captured frame; 0 before the first.

        Read and written as a file and not as mapped memory: a camera process gone mad may cut the file short,
        and touching a page that is no longer there would kill the daemon.
        """
        count = os.pread(self.descriptor, _COUNT.size, _HEAD.size)
        return max(self._told, _COUNT.unpack(count)[0] if len(count) == _COUNT.size else 0)

    @captured.setter
    def captured(self, frame: int) -> None:
        self._told = frame
        # A disk that has become read-only is the journal's trouble to tell of: frames are announced even so.
        with contextlib.suppress(OSError):
            os.pwrite(self.descriptor, _COUNT.pack(frame), _HEAD.size)

    def close(self) -> None:
        """Give the descriptor back; a file stays."""
        os.close(self.descriptor)


def counter_file(journal: Path, camera: str) -> Path:
    """Say where a camera's captured frames are counted, beside the journal."""
    return journal.with_name(f"{journal.name}.{camera}{_SUFFIX}")


def counter_files(journal: Path) -> dict[str, Path]:
    """Find the counters beside a journal, by camera."""
    files = sorted(journal.parent.glob(f"{glob.escape(journal.name)}.*{_SUFFIX}"))
    return {file.name.removeprefix(f"{journal.name}.").removesuffix(_SUFFIX): file for file in files}


def read_counter(path: Path) -> tuple[str, int] | None:
    """Read the counter that an earlier daemon left.

    Returns:
        Its boot and the number of the last captured frame; None when there is no such file or it is torn,
        damaged or something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LENGTH + 1)
    except OSError:
        return None
    if len(content) != _LENGTH:
        return None
    magic, boot, checksum = _HEAD.unpack_from(content)
    boot = boot.rstrip(b"\0")
    if magic != _MAGIC or checksum != zlib.crc32(content[:80]) or not _BOOT.fullmatch(boot):
        return None
    return boot.decode(), _COUNT.unpack_from(content, _HEAD.size)[0]
