"""The log on stderr. Whoever reads it may stop reading: a full pipe must not stop the line."""

import contextlib
import logging
import os
import queue
import threading
from typing import Final

_MOST_WAITING: Final = 1000
_PATIENCE_S: Final = 1.0
_STDERR: Final = 2


class StderrHandler(logging.Handler):
    """Writes in a thread of its own. While a thousand lines wait, more are dropped, and counted."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all is written, for a second at the most."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, _PATIENCE_S)

    def _write_all(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line += f"\ninspectd: {dropped} lines of the log were dropped, as nobody read it"
            with contextlib.suppress(OSError):  # nobody will ever read it
                # Not through sys.stderr: at its end the interpreter would wait for a write that hangs there.
                os.write(_STDERR, f"{line}\n".encode(errors="backslashreplace"))
            self._lines.task_done()
