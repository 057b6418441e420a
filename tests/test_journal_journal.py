import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from line_process import a_verdict
from patience import PATIENCE_S

from daemon.journal.audit import audit
from daemon.journal.journal import Journal, JournalFailed
from daemon.journal.reader import JournalReader
from daemon.journal.recovery import unjudged
from foundation.errors import InputError
from verdicts import Verdict, encode

BOOT = "ab12cd34ef567890"
WRITER = Path(__file__).with_name("journal_writer.py")


def opened(folder: Path, **changes: Any) -> Journal:
    options: dict[str, Any] = {"line": "line3", "keep_days": 30, "max_mb": 100} | changes
    return Journal(folder / "line3.journal", **options)


def verdicts(first: int, last: int, boot: str = BOOT, **changes: Any) -> list[tuple[Verdict, bytes]]:
    base = a_verdict(1, boot)
    made = [replace(base, **({"seq": n, "frame": n} | changes)) for n in range(first, last + 1)]
    return [(verdict, encode(verdict)[1]) for verdict in made]


def payloads(first: int, last: int, boot: str = BOOT) -> list[bytes]:
    return [payload for _, payload in verdicts(first, last, boot)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = opened(tmp_path)
    yield journal
    journal.close()


def test_what_was_written_is_read_back_byte_for_byte(journal: Journal) -> None:
    journal.note("start", {"boot": BOOT, "version": "0.1.0"})
    journal.write(verdicts(1, 3))
    journal.write(verdicts(4, 600))
    with JournalReader(journal.file) as reader:
        assert list(reader.verdicts(BOOT, 2, 599)) == payloads(2, 599)
        assert list(reader.since(datetime(2000, 1, 1, tzinfo=UTC))) == payloads(1, 600)
        assert list(reader.since(datetime.now(UTC) + timedelta(hours=1))) == []
        assert reader.last_row() == journal.entries == 602
        assert reader.after(600, 10) == [(601, payloads(599, 599)[0]), (602, payloads(600, 600)[0])]
        assert [row for row, _ in reader.after(0, 2)] == [3, 4]
        assert reader.boots() == [BOOT]
        assert reader.last_seq(BOOT) == 600 and reader.last_seq("ff") == 0


def test_a_journal_goes_on_where_it_ended(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write(verdicts(1, 5, "aa"))
    entries, head = first.entries, first.head
    first.close()
    second = opened(tmp_path)
    assert (second.entries, second.head) == (entries, head)
    second.write(verdicts(6, 6, "aa"))
    second.note("start", {"boot": "bb"})
    second.close()
    with JournalReader(second.file) as reader:
        assert reader.boots() == ["aa", "bb"]
    assert audit(second.file, expected_head=head).intact


def test_its_files_are_for_owner_and_group_only(journal: Journal) -> None:
    journal.write(verdicts(1, 1))
    for file in journal.file.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o137 == 0, file


@pytest.mark.parametrize(
    "again",
    [verdicts(2, 2, frame=99), verdicts(2, 2, seq=99)],
    ids=["second seq", "second verdict on a frame"],
)
def test_the_database_refuses_a_second_verdict_and_goes_on(
    journal: Journal, again: list[tuple[Verdict, bytes]]
) -> None:
    journal.write(verdicts(1, 3))
    before = (journal.entries, journal.head)
    with pytest.raises(RuntimeError, match="refuses a second entry"):
        journal.write([*verdicts(4, 4), *again])
    assert (journal.entries, journal.head) == before
    journal.write(verdicts(4, 5))
    assert audit(journal.file).intact


def test_what_a_failed_call_had_written_after_all_is_passed_over(journal: Journal) -> None:
    journal.write(verdicts(1, 3))
    journal.write(verdicts(2, 5))
    with JournalReader(journal.file) as reader:
        assert list(reader.verdicts(BOOT, 1, 9)) == payloads(1, 5)
    assert audit(journal.file).intact


def test_another_daemon_is_kept_out_until_the_first_is_gone(journal: Journal) -> None:
    with pytest.raises(InputError, match="another inspectd writes this journal"):
        opened(journal.file.parent)
    journal.write(verdicts(1, 1))


def test_another_lines_journal_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(InputError, match="journal of line line3; expected one of line line4"):
        opened(tmp_path, line="line4")
    opened(tmp_path).close()  # the lock was given back


def spoil_nothing(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()


def spoil_text(file: Path) -> None:
    file.write_text("this is a letter to my grandmother, and no database at all\n" * 100)


def spoil_foreign(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def spoil_version(file: Path) -> None:
    opened(file.parent).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")


def spoil_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_nothing, "its folder does not exist"),
        (spoil_text, "is not a journal of inspectd"),
        (spoil_foreign, "another application's database"),
        (spoil_version, "journal of version 7; expected version 1"),
        (spoil_folder, "expected the journal's file"),
    ],
)
def test_what_is_no_journal_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, spoil: Any, expected: str
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    file = folder / "line3.journal"
    file.touch()
    spoil(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(InputError, match=expected) as refused:
        opened(folder)
    assert "\n" not in str(refused.value) and str(file) in str(refused.value)
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_removed_file_is_noticed_and_a_new_one_is_begun(journal: Journal) -> None:
    journal.write(verdicts(1, 9))
    for file in journal.file.parent.glob("line3.journal*"):
        file.unlink()
    with pytest.raises(JournalFailed, match="was removed"):
        journal.write(verdicts(10, 10))
    journal.write(verdicts(10, 12))
    found = audit(journal.file)
    assert found.intact
    assert any("verdicts 1 to 9" in remark for remark in found.remarks)


def test_checkpoints_go_on_in_a_file_that_took_the_journals_place(tmp_path: Path, journal: Journal) -> None:
    def in_the_database_file(least: int) -> None:
        """Wait until so many rows are there without the log."""
        copy = tmp_path / "copy"
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            # Not by this process: with its descriptor it would close the journal's locks.
            subprocess.run(["cp", journal.file, copy], check=True)
            with contextlib.closing(sqlite3.connect(copy)) as found, contextlib.suppress(sqlite3.Error):
                if found.execute("SELECT count(*) FROM journal").fetchone()[0] >= least:
                    return
        pytest.fail(f"not within 30 s; {journal.trouble}")

    journal.write(verdicts(1, 200))
    in_the_database_file(200)
    for file in journal.file.parent.glob("line3.journal*"):
        file.unlink()
    with pytest.raises(JournalFailed, match="was removed"):
        journal.write(verdicts(201, 201))
    journal.write(verdicts(201, 400))
    in_the_database_file(200)
    assert journal.trouble is None


def test_verdicts_that_were_never_journaled_are_told(journal: Journal) -> None:
    journal.write(verdicts(1, 3))
    journal.write(verdicts(8, 9))
    found = audit(journal.file)
    assert found.intact
    assert [remark for remark in found.remarks if "verdicts 4 to 7" in remark]


def test_a_clock_that_is_set_back_is_told_and_hides_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = datetime.now(UTC)
    journal.write(verdicts(1, 10))
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() - 3600 * 10**9)
    journal.write(verdicts(11, 20))
    monkeypatch.undo()
    journal.write(verdicts(21, 30))
    with JournalReader(journal.file) as reader:
        assert list(reader.since(begun)) == [*payloads(1, 10), *payloads(21, 30)]
        assert list(reader.since(begun - timedelta(hours=2))) == payloads(1, 30)
    remarks = " ".join(audit(journal.file).remarks)
    assert "the clock was set by -3600.0" in remarks and "the clock was set by 3600.0" in remarks


def test_age_removes_the_oldest_rows_and_the_audit_knows(tmp_path: Path) -> None:
    journal = opened(tmp_path, keep_days=0)
    for first in range(1, 6001, 8):
        journal.write(verdicts(first, first + 7))
    journal.close()
    with JournalReader(journal.file) as reader:
        kept = reader.last_row() - reader.first_row() + 1
        assert 100 <= kept <= 2000
        assert list(reader.verdicts(BOOT, 1, 6000)) == payloads(6001 - len(list(reader.after(0, 9999))), 6000)
    found = audit(journal.file)
    assert found.intact, found.broken
    assert any("retention" in remark for remark in found.remarks)


def test_size_is_kept_and_each_transaction_removes_little(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_mb=4)
    removed: list[int] = []
    largest = 0
    with JournalReader(journal.file) as reader:
        first_row = reader.first_row()
        for first in range(1, 16001, 16):
            journal.write(verdicts(first, first + 15))
            removed.append(reader.first_row() - first_row)
            first_row += removed[-1]
            largest = max(largest, journal.file.stat().st_size)
    journal.close()
    assert largest <= 4e6
    assert sum(removed) > 5000
    assert max(removed) <= 2 * 16 + 32
    assert audit(journal.file).intact


def test_frames_without_a_verdict_are_found(journal: Journal) -> None:
    judged = [*range(1, 3000), 3001, 3005]
    for seq, frame in enumerate(judged, 1):
        if seq % 500 == 1:
            batch = []
        batch += verdicts(seq, seq, frame=frame)
        if seq % 500 == 0 or frame == judged[-1]:
            journal.write(batch)
    with JournalReader(journal.file) as reader:
        assert unjudged(reader, BOOT, "top", 3007) == [3000, 3002, 3003, 3004, 3006, 3007]
        assert unjudged(reader, BOOT, "side", 3) == [1, 2, 3]
        assert unjudged(reader, "ff", "top", 2) == [1, 2]
        assert unjudged(reader, BOOT, "top", 0) == []


def test_frames_whose_verdicts_retention_removed_had_one(tmp_path: Path) -> None:
    journal = opened(tmp_path, keep_days=0)
    frames = [n for n in range(1, 5001) if n not in {7, 2400, 4990}]
    frames[10], frames[3000] = frames[3000], frames[10]  # lanes finish out of order
    for first in range(0, len(frames), 10):
        batch = frames[first : first + 10]
        made = [verdicts(first + n + 1, first + n + 1, frame=frame)[0] for n, frame in enumerate(batch)]
        journal.write(made)
    with JournalReader(journal.file) as reader:
        assert reader.first_row() > 3000
        assert unjudged(reader, BOOT, "top", 5002) == [7, 2400, 4990, 5001, 5002]
    journal.close()


def test_readers_in_other_threads_see_every_row_once_while_it_is_written(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_mb=8)  # a log of 1 MB, which starts over again and again
    seen: list[bytes] = []
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            with JournalReader(journal.file) as reader:
                row_id = 0
                while len(seen) < 4000:
                    rows = reader.after(row_id, 100)
                    seen.extend(payload for _, payload in rows)
                    row_id = rows[-1][0] if rows else row_id
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=follow)
    thread.start()
    for first in range(1, 4001, 2):
        journal.write(verdicts(first, first + 1))
    thread.join(timeout=PATIENCE_S)
    assert not failures and seen == payloads(1, 4000)
    assert journal.trouble is None
    journal.close()


def test_a_query_left_open_is_told_and_does_not_stop_the_line(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_mb=4)
    journal.write(verdicts(1, 100))
    query = sqlite3.connect(f"file:{journal.file}?mode=ro", uri=True)
    reading = query.execute("SELECT * FROM journal")
    reading.fetchone()
    seq, give_up = 101, time.monotonic() + PATIENCE_S
    while journal.trouble is None:
        assert time.monotonic() < give_up
        journal.write(verdicts(seq, seq + 9))
        seq += 10
    assert "query" in journal.trouble
    reading.close()
    query.close()
    while journal.trouble is not None:
        assert time.monotonic() < give_up
        journal.write(verdicts(seq, seq + 9))
        seq += 10
    journal.close()
    assert audit(journal.file).intact


def start_writer(
    file: Path, *, boot: str, batch: int = 1, most_bytes: int = 0, max_mb: float = 100
) -> "subprocess.Popen[str]":
    command = [sys.executable, WRITER, file, boot, f"{batch}", f"{most_bytes}", f"{max_mb}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_nothing_that_was_written_is_lost_by_kill_9(tmp_path: Path) -> None:
    """Each round reads a different number of lines, so that the kill comes at ever other instants."""
    file = tmp_path / "line3.journal"
    for turn in range(24):
        boot = f"{turn + 1:x}"
        # Small sizes: checkpoints, retention and the log's start over are all under way when the kill comes.
        writer = start_writer(file, boot=boot, batch=1 + turn % 5, max_mb=2)
        assert writer.stdout is not None
        said = ["open 0 0"]
        for _ in range(1 + 97 * turn % 1500):
            said.append(writer.stdout.readline())
        writer.kill()
        said += writer.stdout.readlines()
        writer.wait()
        said = [line for line in said if line.endswith("\n") and line.startswith("written")]
        if not said:
            continue
        _, seq, entries, head = said[-1].split()
        found = audit(file, expected_head=head)
        assert found.intact, (turn, found.broken)
        with JournalReader(file) as reader:
            assert reader.last_seq(boot) >= int(seq)
            assert reader.last_row() >= int(entries)


def test_a_file_that_may_not_grow_fails_the_write_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "line3.journal"
    with start_writer(file, boot="aa", most_bytes=600_000) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        said = writer.stdout.readline()
        while (line := writer.stdout.readline()).startswith("written"):
            said = line
        assert line.startswith(f"failed {file}: ")
        writer.stdin.close()
    _, seq, _, head = said.split()
    found = audit(file, expected_head=head)
    assert found.intact and found.verdicts == int(seq)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, full as soon as a test fills it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_fails_and_the_journal_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    journal = opened(small_disk)
    seq = 1
    with pytest.raises(JournalFailed, match="full"):
        while True:
            journal.write(verdicts(seq, seq + 9))
            seq += 10
    entries, head = journal.entries, journal.head
    with pytest.raises(JournalFailed, match="full"):
        journal.write(verdicts(seq, seq + 9))
    with JournalReader(journal.file) as reader:
        assert reader.last_seq(BOOT) == seq - 1
    assert (journal.entries, journal.head) == (entries, head)
    ballast.unlink()
    journal.write(verdicts(seq + 10, seq + 19))  # those of the failed call were published without it
    journal.close()
    found = audit(journal.file, expected_head=head)
    assert found.intact, found.broken
    assert any(f"verdicts {seq} to {seq + 9}" in remark for remark in found.remarks)


def test_a_disk_that_turns_read_only_fails_and_comes_back(tmp_path: Path) -> None:
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16_000_000)
    made = [["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(folder)]]
    if os.geteuid() != 0 or any(subprocess.run(c, capture_output=True, check=False).returncode for c in made):
        pytest.skip("only root can mount a file system")
    try:
        journal = opened(folder)
        journal.write(verdicts(1, 10))
        # What ext4 does by itself when the disk reports errors.
        subprocess.run(["mount", "-o", "remount,abort", str(folder)], check=True)
        with pytest.raises(JournalFailed):
            for seq in range(11, 2000):
                journal.write(verdicts(seq, seq))
        with pytest.raises(JournalFailed):
            journal.write(verdicts(2000, 2000))
        journal.close()
        subprocess.run(["umount", str(folder)], check=True)
        subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
        subprocess.run(["mount", "-o", "loop,ro", str(image), str(folder)], check=True)
        with pytest.raises(InputError, match="Read-only file system"):
            opened(folder)
        assert audit(journal.file).intact
        subprocess.run(["umount", str(folder)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        journal = opened(folder)
        journal.write(verdicts(3000, 3000))
        journal.close()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for first in range(1, 2001, 20):
        journal.write(verdicts(first, first + 19))
    journal.close()
    content = bytearray(journal.file.read_bytes())
    page_bytes = int.from_bytes(content[16:18], "big")
    for page in range(page_bytes, len(content), page_bytes):
        content[page : page + 64] = b"\xff" * 64
    journal.file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        opened(tmp_path)
    assert not audit(journal.file).intact


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_dead_daemons_journal_is_read_without_a_right_to_write(tmp_path: Path, end: str) -> None:
    file = tmp_path / "state" / "line3.journal"
    file.parent.mkdir()
    with start_writer(file, boot="aa") as writer:
        assert writer.stdout is not None and writer.stdin is not None
        while "written 5 " not in writer.stdout.readline():
            pass
        writer.send_signal(signal.SIGKILL if end == "killed" else signal.SIGTERM)
        writer.stdin.close()
        writer.stdout.read()
    if end == "stopped":
        opened(file.parent).close()
    assert file.with_name("line3.journal-wal").exists() == (end == "killed")
    for there in file.parent.iterdir():
        there.chmod(0o444)
    file.parent.chmod(0o555)
    for folder in tmp_path, *tmp_path.parents:
        if "pytest" in str(folder):
            folder.chmod(folder.stat().st_mode | 0o055)
    read = (
        "import os, sys; from pathlib import Path; from daemon.journal.reader import JournalReader;"
        "os.getuid() == 0 and os.setuid(65534);"
        "print(len(list(JournalReader(Path(sys.argv[1])).verdicts('aa', 1, 5))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", read, file],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert found.stdout == "5\n", found.stderr
