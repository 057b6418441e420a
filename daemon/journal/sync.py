"""Has the disk take what checkpoints have written into a journal's database file."""

import os
from pathlib import Path


class DatabaseSync:
    """Syncs the database file between the checkpoints that SQLite itself syncs.

    SQLite syncs it only behind a checkpoint that has caught up with the writer. Beside a busy writer none
    does, until one holds the writer off: that one would wait for the disk to take everything that was carried
    since the last such one (https://sqlite.org/wal.html#checkpointing).

    Closing any descriptor of a file drops the locks that SQLite holds on it for the whole process, so the one
    that is opened here stays open until ``close``, or until another file has taken the journal's place.
    """

    def __init__(self, file: Path) -> None:
        """Sync nothing yet.

        Args:
            file: the journal.
        """
        self._file = file
        self._descriptor = -1
        self._opened: os.stat_result | None = None

    def sync(self) -> None:
        """Wait until all of the file is on the disk.

        Raises:
            OSError: it is gone, or the disk fails.
        """
        if self._opened is None or not os.path.samestat(self._file.stat(), self._opened):
            self.close()
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            self._opened = os.fstat(self._descriptor)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back, when no connection to the file is left in this process."""
        if self._opened is not None:
            os.close(self._descriptor)
            self._opened = None
