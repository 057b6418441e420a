"""Has the disk take what checkpoints have written into a journal's database file."""

import os
from pathlib import Path


class DatabaseSync:
    """Syncs the database file between the checkpoints that SQLite itself syncs.

    SQLite syncs it only behind a checkpoint that has caught up with the writer. Beside a busy writer none
    does, until one holds the writer off: that one would wait for the disk to take everything that was carried
    since the last such one (https://sqlite.org/wal.html#checkpointing).

    Closing any descriptor of a file drops the locks that SQLite holds on it for the whole process, so those
    opened here stay open until ``close``: one, and one more for each time that the file was replaced.
    """

    def __init__(self, file: Path) -> None:
        """Sync nothing yet.

        Args:
            file: the journal.
        """
        self._file = file
        self._descriptors: dict[tuple[int, int], int] = {}

    def sync(self) -> None:
        """Wait until all of the file is on the disk.

        Raises:
            OSError: it is gone, or the disk fails.
        """
        found = self._file.stat()
        inode = (found.st_dev, found.st_ino)
        if inode not in self._descriptors:
            self._descriptors[inode] = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        os.fdatasync(self._descriptors[inode])

    def close(self) -> None:
        """Give the descriptors back, when no connection to the file is left in this process."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
