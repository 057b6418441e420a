"""Work that takes a while: exports and commands, one at a time for each line, with progress."""

import itertools
import logging
import os
import re
import subprocess
import sys
import sysconfig
import termios
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from queue import Queue
from typing import Any, Final

from foundation.errors import InputError, WorkFailed

_log = logging.getLogger(__name__)
_KEPT_S: Final = 3600.0
_MOST_JOBS: Final = 200
_MOST_WAITING: Final = 20
_LONGEST_TEXT: Final = 300
_TERMINAL: Final = (24, 100)
"""Rows and columns: in a terminal without a size no bar is drawn."""
_BAR: Final = re.compile(r"(?P<what>.*?):? +(?P<share>\d{1,3})%\|")
"""As tqdm draws one."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Stopped(Exception):
    """Somebody stopped the job."""


@dataclass
class Job:
    """One piece of work.

    Attributes:
        what: "export" or the name of a command.
        line: that it is about.
        user: who wanted it.
        state: "waiting", "running", "done", "failed" or "stopped".
        done: how much of ``total`` is done; 0 of 0 where that is unknown.
        text: the last thing it said.
        file: what came out, to be downloaded; None without.
    """

    id: str
    what: str
    line: str
    user: str
    state: str = "waiting"
    done: int = 0
    total: int = 0
    text: str = ""
    error: str | None = None
    file: Path | None = None
    ended_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Tell how far it is.

        Raises:
            Stopped: somebody stopped it.
        """
        if self.stop.is_set():
            raise Stopped
        self.done, self.total = done, total
        if text:
            self.text = text[:_LONGEST_TEXT]

    def content(self) -> dict[str, Any]:
        """Give it as the page gets it."""
        there = self.state == "done" and self.file is not None and self.file.is_file()
        return {
            "id": self.id,
            "what": self.what,
            "line": self.line,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "text": self.text,
            "result": f"/api/jobs/{self.id}/download" if there else None,
            "bytes": self.file.stat().st_size if there and self.file is not None else None,
            "error": self.error,
        }


Work = Callable[[Job], Path | None]


class Jobs:
    """The jobs of all lines."""

    def __init__(self, folder: Path) -> None:
        """Make the folder for what comes out when it is needed.

        Args:
            folder: of the dashboard's own; what an earlier start left there goes.
        """
        self._folder = folder
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._numbers = itertools.count(1)
        self._queues: dict[str, Queue[tuple[Job, Work]]] = {}
        self._turn = threading.Lock()
        if folder.is_dir():
            for left in folder.glob("*.zip*"):
                left.unlink(missing_ok=True)

    def add(self, what: str, line: str, user: str, work: Work) -> Job | None:
        """Have work done after what waits already; None when too much does."""
        with self._turn:
            self._forget()
            if sum(job.state == "waiting" for job in self._jobs.values()) >= _MOST_WAITING:
                return None
            job = Job(f"j{next(self._numbers)}", what, line, user)
            self._jobs[job.id] = job
            queue = self._queues.get(line)
            if queue is None:
                queue = self._queues[line] = Queue()
                threading.Thread(target=_run, args=(queue,), name=f"jobs of {line}", daemon=True).start()
        queue.put((job, work))
        return job

    def find(self, name: str) -> Job | None:
        """Give a job; None for one that is not there (any more)."""
        with self._turn:
            self._forget()
            return self._jobs.get(name)

    def all(self) -> list[Job]:
        """List the jobs, the newest first."""
        with self._turn:
            self._forget()
            return list(reversed(self._jobs.values()))

    def stop_all(self) -> None:
        """Stop what runs or waits."""
        for job in self.all():
            job.stop.set()

    def file(self, job: Job) -> Path:
        """Name the file that an export writes, and make its folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{job.id}.zip"

    def _forget(self) -> None:
        old = [
            job
            for job in self._jobs.values()
            if job.ended_s and (time.monotonic() - job.ended_s > _KEPT_S or len(self._jobs) > _MOST_JOBS)
        ]
        for job in old:
            del self._jobs[job.id]
            if job.file is not None:
                job.file.unlink(missing_ok=True)


def _run(queue: "Queue[tuple[Job, Work]]") -> None:
    while True:
        job, work = queue.get()
        try:
            job.state = "running"
            job.progress(0, 0)
            job.file = work(job)
            job.state = "done"
        except Stopped:
            job.state = "stopped"
        except (InputError, WorkFailed, OSError) as error:
            job.state, job.error = "failed", str(error)
        except Exception as error:  # the next one has its turn
            _log.exception("%s", job.what)
            job.state, job.error = "failed", f"{type(error).__name__}: {error}"
        job.ended_s = time.monotonic()


def installed(name: str) -> str:
    """Name a command of ours beside this one."""
    found = Path(sysconfig.get_path("scripts")) / name
    beside_us = Path(sys.argv[0]).with_name(name)
    return str(found if found.exists() else beside_us)


def run_command(job: Job, command: list[str], folder: Path) -> None:
    """Run a command with its progress as the job's.

    Raises:
        WorkFailed: it ended with an error; the text is its last line.
        Stopped: somebody stopped it, and it was ended.
    """
    job.progress(0, 0)
    ours, its = os.openpty()  # our commands show their progress on a terminal alone
    termios.tcsetwinsize(its, _TERMINAL)
    with os.fdopen(ours, "rb", buffering=0) as output:
        try:
            process = subprocess.Popen(
                ["nice", "-n", "10", *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=its,
                stderr=its,
            )
        finally:
            os.close(its)
        watcher = threading.Thread(target=_end_when_stopped, args=(job, process), daemon=True)
        watcher.start()
        line = b""
        while some := _read(output):
            *lines, line = re.split(rb"[\r\n]", line + some)
            for ended in lines:
                _take(job, ended)
            line = line[-4000:]
        _take(job, line)
    code = process.wait()
    if job.stop.is_set():
        raise Stopped
    if code != 0:
        raise WorkFailed(job.text or f"{command[0]} ended with exit code {code}")


def _read(terminal: RawIOBase) -> bytes:
    try:
        return terminal.read(4096) or b""
    except OSError:  # nobody writes there any more
        return b""


def _take(job: Job, line: bytes) -> None:
    """Take one line that a command said; of a bar, how full it is and what it counts."""
    text = _ESCAPES.sub("", line.decode(errors="replace")).strip()
    if not text:
        return
    bar = _BAR.match(text)
    if bar is not None:
        job.done, job.total, text = int(bar["share"]), 100, bar["what"]
    job.text = "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_TEXT]


def _end_when_stopped(job: Job, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        if job.stop.wait(0.2):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
            return
