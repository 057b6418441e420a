"""Makes disks as a power cut may leave them, out of one recording of what a daemon did to its files.

What was synced is there. Of what was written since, each page of 4096 bytes is on the disk as it was after
any of the writes, or torn: its front from one of them and its end from another. A file is as long as it was
after any of the writes, and what never came is zeros. Names are on the disk in the order of their changes, up
to any of those since their folder was synced.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

_RECORD: Final = struct.Struct("<QQQIIIc")
_PAGE: Final = 4096
_SECTOR: Final = 512
_TORN: Final = 0.5
"""Of the pages of which there are several states."""


class _Change(NamedTuple):
    """What the daemon did: see ``recording_disk.c``."""

    time_s: float
    inode: int
    offset: int
    thread: int
    what: str
    path: str
    data: bytes


@dataclass
class _File:
    """One file, whatever its names."""

    synced: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and data of each write since then; None: cut to that length."""
    synced_writes: int = 0

    @property
    def writes(self) -> int:
        return self.synced_writes + len(self.since)

    def sync(self, writes: int) -> None:
        """Take all up to this number of writes to the disk."""
        count = max(0, writes - self.synced_writes)
        for offset, data in self.since[:count]:
            _apply(self.synced, offset, data)
        del self.since[:count]
        self.synced_writes += count

    def after_cut(self, chance: random.Random) -> bytes:
        """Give the content as the disk may have it."""
        now = bytearray(self.synced)
        lengths = [len(now)]
        states: dict[int, list[bytes]] = {}
        for offset, data in self.since:
            first, last = offset // _PAGE, (offset + len(data or b"") - 1) // _PAGE
            for page in range(first, last + 1) if data else ():
                states.setdefault(page, [_page(now, page)])
            _apply(now, offset, data)
            lengths.append(len(now))
            for page in range(first, last + 1) if data else ():
                states[page].append(_page(now, page))
        content = bytearray(max(lengths))
        content[: len(self.synced)] = self.synced
        for page, seen in states.items():
            chosen = chance.choice(seen)
            if chance.random() < _TORN:
                at = chance.randrange(_SECTOR, _PAGE, _SECTOR)
                chosen = chosen[:at] + chance.choice(seen)[at:]
            content[page * _PAGE : (page + 1) * _PAGE] = chosen[: max(0, len(content) - page * _PAGE)]
        length = chance.choice(lengths)
        return bytes(content[:length].ljust(length, b"\0"))


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    if data is not None:
        content[offset : offset + len(data)] = data


def _page(content: bytearray, page: int) -> bytes:
    return bytes(content[page * _PAGE : (page + 1) * _PAGE]).ljust(_PAGE, b"\0")


class CutDisk(NamedTuple):
    """A disk after a cut."""

    cut_s: float
    """When the power was cut, of the monotonic clock."""
    files: dict[str, bytes]
    """By their paths."""
    folders: list[str]

    def lay(self, folder: Path, recorded: Path) -> None:
        """Write its files below a folder, which stands for the one that was recorded."""
        for path in (*self.folders, *(str(Path(path).parent) for path in self.files)):
            (folder / Path(path).relative_to(recorded)).mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            (folder / Path(path).relative_to(recorded)).write_bytes(content)


class _Disk:
    """The state of a disk at one place of the recording."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._folders: list[str] = []
        self._names: dict[str, int] = {}
        """On the disk: of which file each is."""
        self._renamed: list[tuple[str, str, str | int]] = []
        """Changes of names since the folder was synced."""
        self._synced_names = 0
        self._begun: dict[tuple[int, int], int] = {}
        """By thread and file: up to where its sync will have taken everything to the disk."""

    def take(self, change: _Change) -> None:
        syncing = (change.thread, change.inode)
        match change.what:
            case "w":
                self._files[change.inode].since.append((change.offset, change.data))
            case "t":
                self._files[change.inode].since.append((change.offset, None))
            case "c":
                self._files[change.inode] = _File()  # the number of one that is gone may come again
                self._renamed.append(("create", change.path, change.inode))
            case "r":
                self._renamed.append(("rename", change.path, change.data.decode()))
            case "u":
                self._renamed.append(("unlink", change.path, ""))
            case "d":
                self._folders.append(change.path)
            case "b":
                self._begun[syncing] = self._files[change.inode].writes
            case "s":
                self._files[change.inode].sync(self._begun.pop(syncing))
            case "B":
                self._begun[syncing] = self._synced_names + len(self._renamed)
            case "S":
                count = max(0, self._begun.pop(syncing) - self._synced_names)
                self._names = self._named(count)
                del self._renamed[:count]
                self._synced_names += count

    def _named(self, count: int) -> dict[str, int]:
        names = dict(self._names)
        for what, path, about in self._renamed[:count]:
            if what == "create":
                names[path] = int(about)
            elif what == "unlink":
                names.pop(path, None)
            elif path in names:
                names[str(about)] = names.pop(path)
        return names

    def after_cut(self, cut_s: float, chance: random.Random) -> CutDisk:
        names = self._named(chance.randint(0, len(self._renamed)))
        files = {path: self._files[inode].after_cut(chance) for path, inode in names.items()}
        return CutDisk(cut_s, files, list(self._folders))


class Recording:
    """What a daemon and its cameras did to the files in a folder."""

    def __init__(self, file: Path) -> None:
        self._changes = list(_changes(file.read_bytes()))
        self._disk = _Disk()
        self._done = 0

    def __len__(self) -> int:
        return len(self._changes)

    def cut(self, place: int, chance: random.Random) -> CutDisk:
        """Cut the power after so many changes; not before an earlier cut."""
        while self._done < place:
            self._disk.take(self._changes[self._done])
            self._done += 1
        return self._disk.after_cut(self._changes[place - 1].time_s, chance)


def _changes(content: bytes) -> Iterator[_Change]:
    at = 0
    while at < len(content):
        time_ns, inode, offset, path_bytes, data_bytes, thread, what = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        path = content[at : at + path_bytes].decode()
        at += path_bytes
        data = content[at : at + data_bytes]
        at += data_bytes
        yield _Change(time_ns / 1e9, inode, offset, thread, what.decode(), path, data)
