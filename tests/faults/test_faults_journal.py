"""A journal that cannot be written, is damaged, is taken away, or is held by another program."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from patience import PATIENCE_S

from daemon.journal.reader import JournalReader
from faults.preload import built
from faults.trial import BELT, JOURNAL_FAILED, Trial, faulted, health
from verdicts import Health

OK = health("journal ok", lambda health: health.journal is not None and health.journal.state == "ok")


def fill(disk: Path) -> Path:
    """Leave not a block of a disk free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("fault", marks=pytest.mark.faults("Journal", "disk full, `on_journal_error: fault`")),
        pytest.param(
            "continue", marks=pytest.mark.faults("Journal", "disk full, `on_journal_error: continue`")
        ),
    ],
)
def test_disk_full(trial: Trial, small_disk: Path, policy: str) -> None:
    journal = {"file": str(small_disk / "line3.journal")}
    trial.start({"top": BELT}, journal=journal, on_journal_error=policy)
    trial.inject()
    filler = fill(small_disk)
    if policy == "fault":
        trial.detected(faulted("journal"))
    else:
        trial.detected(JOURNAL_FAILED)
        trial.uninterrupted("top")
    trial.wait_for(JOURNAL_FAILED)
    filler.unlink()
    trial.recovered()
    # What could not be written at its time stands there by now.
    trial.finish(faults={("top", "journal")} if policy == "fault" else set())


@pytest.fixture
def real_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of its own, which becomes read-only at an error, as Debian mounts its root."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 32 << 20)
    commands: tuple[list[str | Path], ...] = (
        ["mkfs.ext4", "-q", "-O", "^has_journal", image],
        ["mount", "-o", "loop,errors=remount-ro", image, folder],
    )
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"wants {command[0]}")
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def make_read_only(disk: Path) -> None:
    """Do what the kernel does when a disk fails."""
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True, check=True
    ).stdout.strip()
    trigger = Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error"
    try:
        trigger.write_text("rehearsal")
    except OSError as error:
        pytest.skip(f"a file system's error cannot be triggered here: {error}")


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(
            "fault", marks=pytest.mark.faults("Journal", "disk read-only, `on_journal_error: fault`")
        ),
        pytest.param(
            "continue", marks=pytest.mark.faults("Journal", "disk read-only, `on_journal_error: continue`")
        ),
    ],
)
def test_disk_read_only(trial: Trial, real_disk: Path, policy: str) -> None:
    journal = {"file": str(real_disk / "line3.journal")}
    trial.start({"top": BELT}, journal=journal, on_journal_error=policy)
    trial.inject()
    make_read_only(real_disk)
    if policy == "fault":
        trial.detected(faulted("journal"))
    else:
        trial.detected(JOURNAL_FAILED)
    trial.wait_for(JOURNAL_FAILED)
    trial.uninterrupted("top")
    trial.finish(faults={("top", "journal")} if policy == "fault" else set(), journal_complete=False)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(
            "line3.journal",
            marks=pytest.mark.faults("Journal", "disk fails to sync the database file for a while"),
        ),
        pytest.param(
            "line3.journal-wal",
            marks=pytest.mark.faults("Journal", "disk fails to sync the write-ahead log for a while"),
        ),
    ],
)
def test_disk_fails_to_sync(trial: Trial, file: str) -> None:
    failing = trial.folder / "failing"
    disk = {"LD_PRELOAD": built("failing_sync.c", trial.folder), "FAILING_SYNC": str(failing)}
    trial.start({"top": BELT | {"fps": 400}}, environment=disk)
    trial.inject()
    failing.write_text(str(trial.folder / file))
    message = trial.detected(health("degraded", lambda health: health.state == "degraded"))
    assert isinstance(message, Health) and message.journal is not None
    assert message.journal.state == "ok"  # rows can be written all the while
    # SQLite syncs the database file where a checkpoint catches up with the writer, else we do.
    assert "line3.journal: its checkpoint " in str(message.journal.error)
    trial.uninterrupted("top")
    failing.unlink()
    trial.recovered_when(health("running", lambda health: health.state == "running"))
    assert "checkpoints go on" in trial.log
    trial.finish()


def hanging_disk(trial: Trial, *calls: str) -> tuple[Path, dict[str, str]]:
    """A disk that answers none of these calls on the journal's files while a file exists."""
    hanging = trial.folder / "hanging"
    environment = {
        "LD_PRELOAD": built("hanging_disk.c", trial.folder),
        "HANGS_WHILE": str(hanging),
        **{call: str(trial.folder / "line3.journal") for call in calls},
    }
    return hanging, environment


@pytest.mark.faults("Journal", "disk hangs: no sync is answered")
def test_disk_hangs_in_sync(trial: Trial) -> None:
    hanging, disk = hanging_disk(trial, "HANGING_SYNC")
    trial.start({"top": BELT | {"fps": 400}}, environment=disk)
    trial.inject()
    hanging.touch()
    message = trial.detected(health("degraded", lambda health: health.state == "degraded"))
    assert isinstance(message, Health) and message.journal is not None
    assert "its checkpoint has not ended" in str(message.journal.error)
    trial.uninterrupted("top", verdicts=400)
    hanging.unlink()
    trial.recovered_when(health("running", lambda health: health.state == "running"))
    # A checkpoint that held the writer off when the disk began to hang has made faults of what came then.
    trial.finish(possible={("top", "journal")})


@pytest.mark.faults("Journal", "disk hangs: no write is answered")
def test_disk_hangs_in_write(trial: Trial) -> None:
    hanging, disk = hanging_disk(trial, "HANGING_SYNC", "HANGING_WRITE")
    trial.start({"top": BELT}, environment=disk)
    trial.inject()
    hanging.touch()
    trial.detected(faulted("journal"))
    trial.wait_for(JOURNAL_FAILED)
    trial.uninterrupted("top", verdicts=200)
    hanging.unlink()
    trial.recovered()
    # The write that hung is done after all: what it wrote was published otherwise, and is taken back.
    trial.finish(faults={("top", "journal")})


@pytest.mark.faults("Journal", "file removed")
def test_removed(trial: Trial) -> None:
    trial.start({"top": BELT})
    trial.inject()
    for file in trial.folder.glob("line3.journal*"):
        if not file.name.endswith(".captured"):
            file.unlink()
    trial.detected(faulted("journal"))
    trial.recovered()
    # A new one was begun; what the old one held is gone with it.
    trial.finish(faults={("top", "journal")}, journal_complete=False)


@pytest.mark.faults("Journal", "held by another program for 1 s")
def test_held(trial: Trial) -> None:
    trial.start({"top": BELT})
    with contextlib.closing(sqlite3.connect(trial.journal, isolation_level=None)) as other:
        trial.inject()
        other.execute("BEGIN IMMEDIATE")
        trial.detected(faulted("journal"))
        trial.uninterrupted("top", verdicts=100)
        other.execute("ROLLBACK")
    trial.recovered()
    trial.finish(faults={("top", "journal")})


@pytest.mark.faults("Journal", "disk full until the end, then started again with room")
def test_disk_full_at_the_end(trial: Trial, small_disk: Path) -> None:
    journal = {"file": str(small_disk / "line3.journal")}
    trial.start({"top": BELT}, journal=journal)
    trial.inject()
    filler = fill(small_disk)
    trial.detected(faulted("journal"))
    trial.wait_for(JOURNAL_FAILED)
    trial.send(signal.SIGTERM)
    trial.process.wait(PATIENCE_S)
    trial.note_end()
    filler.unlink()
    trial.launch()
    trial.recovered()
    # What was published and never written down does not get a second verdict.
    trial.finish(faults={("top", "journal")}, journal_complete=False)


@contextlib.contextmanager
def full(trial: Trial) -> Iterator[None]:
    filler = fill(trial.journal.parent)
    yield
    filler.unlink(missing_ok=True)


@contextlib.contextmanager
def held(trial: Trial) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(trial.journal, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


AT_THE_START = pytest.mark.parametrize(
    ("fault", "policy"),
    [
        pytest.param(
            fault,
            policy,
            marks=pytest.mark.faults("Journal", f"{name} at the start, `on_journal_error: {policy}`"),
        )
        for name, fault in (("disk full", full), ("held by another program", held))
        for policy in ("fault", "continue")
    ],
)


@AT_THE_START
def test_not_to_be_had_at_the_start(
    trial: Trial, small_disk: Path, fault: Callable[[Trial], AbstractContextManager[None]], policy: str
) -> None:
    trial.start({"top": BELT}, journal={"file": str(small_disk / "line3.journal")}, on_journal_error=policy)
    trial.killed()  # what it captured last is to be a fault of the next start at which the journal works
    with fault(trial):
        trial.inject()
        trial.launch()
        if policy == "fault":
            trial.detected_in_log("line3.journal: ")
            trial.exited(1)
        else:
            trial.detected(JOURNAL_FAILED)
            assert "the line starts without it" in trial.log
            trial.uninterrupted("top")
    if policy == "fault":
        trial.launch()
        trial.wait_for(health("running", lambda health: health.state == "running"))
    else:
        trial.recovered_when(OK)
        with JournalReader(trial.journal) as reader:
            trial.wait_until(lambda: (reader.last_event("start") or {}).get("boot") == trial.health.boot)
        trial.send(signal.SIGTERM)
        trial.exited(0)
        trial.launch()
        trial.wait_for(health("running", lambda h: h.state == "running"), since_s=time.monotonic())
    trial.finish(possible={("top", "shutdown")})


def damage(file: Path, first: int, last: int) -> None:
    """Write noise over pages of a journal, as a failing disk does."""
    with file.open("r+b", buffering=0) as raw:
        raw.seek(first * 4096)
        raw.write(os.urandom((last - first) * 4096))


@pytest.mark.faults("Journal", "pages damaged, found at the next start")
def test_damaged_at_the_start(trial: Trial) -> None:
    trial.start({"top": BELT})
    trial.send(signal.SIGSTOP)
    trial.wait_for_captured(20)
    trial.killed()
    whole = {file: file.read_bytes() for file in trial.folder.glob("line3.journal*")}
    damage(trial.journal, 0, 4)
    trial.inject()
    trial.launch()
    trial.detected_in_log("line3.journal: ")
    trial.exited(2)
    for file, content in whole.items():  # what a backup is for
        file.write_bytes(content)
    trial.launch()
    trial.wait_for(health("running", lambda health: health.state == "running"))
    trial.finish(faults={("top", "shutdown")})


@pytest.mark.faults("Journal", "pages damaged while the daemon runs")
def test_damaged_while_running(trial: Trial) -> None:
    trial.start({"top": BELT | {"fps": 400}})
    trial.inject()
    trial.uninterrupted("top", verdicts=1000)
    # Into the file itself, from the log: checkpoints do so in time.
    trial.wait_until(lambda: trial.journal.stat().st_size > 200_000)
    trial.inject()
    damage(trial.journal, 4, 40)
    trial.detected_by_audit()
    trial.uninterrupted("top")
    trial.finish(journal_intact=False)
