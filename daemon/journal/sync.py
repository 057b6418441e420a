"""Makes the disk store what checkpoints have written into a journal's database file."""

import os
from pathlib import Path


class DatabaseSync:
    """Syncs the database file between the checkpoints that SQLite itself syncs.

    SQLite syncs it only after a checkpoint that has caught up with the writer. Beside a busy writer no
    checkpoint does, until one holds the writer off. That one would wait until the disk has stored everything
    that was carried since the last such one (https://sqlite.org/wal.html#checkpointing).

    Closing any descriptor of a file drops the locks that SQLite holds on it for the whole process, so the one
    that is opened here stays open until ``close``.
    """

    def __init__(self, file: Path) -> None:
        """Sync nothing yet.

        Args:
            file: the journal.
        """
        self._file = file
        self._descriptor = -1

    def sync(self) -> None:
        """Wait until all of the file is on the disk.

        Raises:
            OSError: it is gone, or the disk fails.
        """
        if self._descriptor < 0:
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back: another file has taken the journal's place, or no connection is left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
