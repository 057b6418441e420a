import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_process import a_verdict

from daemon.journal.audit import audit
from daemon.journal.chain import NOTHING, Row, hash_of
from daemon.journal.journal import Journal
from verdicts import encode

ROWS = 24
INSPECTCTL = Path(sys.executable).with_name("inspectctl")


def write(journal: Journal, boot: str, first: int, last: int) -> None:
    made = [replace(a_verdict(1, boot), seq=n, frame=n) for n in range(first, last + 1)]
    journal.write([(verdict, encode(verdict)[1]) for verdict in made])


def a_journal(file: Path) -> tuple[Path, str]:
    """Two boots, the first of them killed: row 1 created, 2 start, 3–12, 13 start, 14–23, 24 stop."""
    journal = Journal(file, line="line3", keep_days=30, max_mb=10)
    journal.note("start", {"boot": "aa"})
    write(journal, "aa", 1, 10)
    journal.note("start", {"boot": "bb"})
    write(journal, "bb", 1, 10)
    journal.note("stop", {"boot": "bb"})
    assert journal.entries == ROWS
    journal.close()
    return file, journal.head


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return a_journal(tmp_path_factory.mktemp("journal") / "line3.journal")


def spoiled(whole: Path, *statements: tuple[str, tuple[Any, ...]]) -> Path:
    """Copy a journal and do what a person with an editor for SQLite could do to it."""
    copy = whole.with_name("spoiled.journal")
    shutil.copyfile(whole, copy)
    with sqlite3.connect(copy) as connection:
        for index in ("journal_seq", "journal_frame"):
            connection.execute(f"DROP INDEX {index}")  # they would refuse some of it
        for statement, values in statements:
            connection.execute(statement, values)
    connection.close()
    return copy


def breaks(file: Path, expected_head: str | None = None) -> list[str]:
    """Give what the audit found, without the missing indexes."""
    return [line for line in audit(file, expected_head=expected_head).broken if "definition" not in line]


def test_a_whole_journal_is_intact(whole: tuple[Path, str]) -> None:
    file, head = whole
    found = audit(file, expected_head=head)
    assert found.intact
    assert (found.line, found.first, found.last, found.head) == ("line3", 1, ROWS, head)
    assert (found.verdicts, found.boots, found.remarks) == (20, 2, ())


@settings(max_examples=150, deadline=None)
@given(
    row=st.integers(1, ROWS),
    column=st.sampled_from(Row._fields),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_one_changed_bit_in_any_column_is_found(
    whole: tuple[Path, str], row: int, column: str, at: int, bit: int
) -> None:
    file, head = whole
    with sqlite3.connect(file) as connection:
        value = connection.execute(f"SELECT {column} FROM journal WHERE id = ?", (row,)).fetchone()[0]
    connection.close()
    changed: Any
    if value is None:
        changed = 0
    elif isinstance(value, int):
        changed = value ^ (1 << (at % 40))
    else:
        content = bytearray(value if isinstance(value, bytes) else value.encode())
        content[at % len(content)] ^= 1 << bit
        # As SQLite would give back a text of such bytes.
        changed = bytes(content) if isinstance(value, bytes) else content.decode(errors="replace")
    taken = column == "id" and 1 <= changed <= ROWS
    if taken:
        moves: tuple[tuple[str, tuple[Any, ...]], ...] = exchange(row, changed)
    else:
        moves = ((f"UPDATE journal SET {column} = ? WHERE id = ?", (changed, row)),)
    assert breaks(spoiled(file, *moves), head)


def exchange(one: int, other: int) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    move = "UPDATE journal SET id = ? WHERE id = ?"
    return (move, (-1, one)), (move, (one, other)), (move, (other, -1))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(1, ROWS), min_size=1, max_size=ROWS - 1), st.booleans())
def test_removed_rows_are_found(whole: tuple[Path, str], rows: set[int], renumbered: bool) -> None:
    file, head = whole
    removals: list[tuple[str, tuple[int, ...]]] = [
        ("DELETE FROM journal WHERE id = ?", (row,)) for row in rows
    ]
    if renumbered:
        left = [row for row in range(1, ROWS + 1) if row not in rows]
        removals += [
            ("UPDATE journal SET id = ? WHERE id = ?", (new, old)) for new, old in enumerate(left, 1)
        ]
    assert breaks(spoiled(file, *removals), head)


@given(st.integers(1, ROWS), st.integers(1, ROWS))
@settings(max_examples=40, deadline=None)
def test_exchanged_rows_are_found(whole: tuple[Path, str], one: int, other: int) -> None:
    file, head = whole
    assert bool(breaks(spoiled(file, *exchange(one, other)), head)) == (one != other)


def test_an_inserted_row_is_found_even_when_it_fits_its_predecessor(whole: tuple[Path, str]) -> None:
    file, _ = whole
    verdict = replace(a_verdict(1, "bb", "reject"), seq=11, frame=11)
    with sqlite3.connect(file) as connection:
        rows = [Row(*row) for row in connection.execute("SELECT * FROM journal ORDER BY id")]
    connection.close()
    inserted = Row(
        19, "verdict", "bb", 11, "top", 11, rows[17].written_at, encode(verdict)[1], hash_of(rows[17])
    )
    shift = [("UPDATE journal SET id = ? WHERE id = ?", (n + 1, n)) for n in range(ROWS, 18, -1)]
    insert = ("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(inserted))
    assert breaks(spoiled(file, *shift, insert))[0].startswith("row 20 does not follow row 19")


def rechained(file: Path, change: Callable[[list[Row]], list[Row]]) -> Path:
    """Forge the whole chain behind a change, as someone who knows how it is made."""
    copy = file.with_name("forged.journal")
    shutil.copyfile(file, copy)
    with sqlite3.connect(copy) as connection:
        rows = change([Row(*row) for row in connection.execute("SELECT * FROM journal ORDER BY id")])
        connection.execute("DELETE FROM journal")
        previous = NOTHING
        for number, row in enumerate(rows, 1):
            forged = row._replace(id=number, previous=previous)
            previous = hash_of(forged)
            connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tuple(forged))
    connection.close()
    return copy


def test_a_forged_chain_does_not_reach_the_head_that_was_told(whole: tuple[Path, str]) -> None:
    file, head = whole
    forged = rechained(file, lambda rows: rows[:-1])
    assert audit(forged).intact
    assert "the expected head" in breaks(forged, head)[0]


def test_a_verdict_or_frame_that_is_missing_in_a_forged_chain_is_found(whole: tuple[Path, str]) -> None:
    file, _ = whole
    found = breaks(rechained(file, lambda rows: rows[:5] + rows[6:]))
    assert found == [
        "boot aa: the verdicts 4 are missing",
        "boot aa: the frames 4 of camera top have no verdict",
    ]


def test_an_older_head_is_found_in_the_chain(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "line3.journal", line="line3", keep_days=30, max_mb=10)
    write(journal, "aa", 1, 5)
    head = journal.head
    write(journal, "aa", 6, 9)
    assert audit(journal.file, expected_head=head).intact  # while it is open
    journal.close()


def test_removal_beyond_retention_is_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "line3.journal", line="line3", keep_days=0, max_mb=10)
    for first in range(1, 2001, 10):
        write(journal, "aa", first, first + 9)
    journal.close()
    first = audit(journal.file).first
    assert first > 1 and audit(journal.file).intact
    with sqlite3.connect(journal.file) as connection:
        said = json.loads(
            connection.execute(
                "SELECT payload FROM journal WHERE kind = 'retention' ORDER BY id DESC"
            ).fetchone()[0]
        )
        connection.execute("DELETE FROM journal WHERE id <= ?", (said["through"] + 1,))
    connection.close()
    assert f"rows {said['through'] + 1} to {said['through'] + 1} are missing" in breaks(journal.file)[0]


def test_a_flipped_byte_anywhere_in_the_rows_file_breaks_it(whole: tuple[Path, str]) -> None:
    file, head = whole
    content = file.read_bytes()
    at = content.index(b'"score":0.5', len(content) // 2)
    copy = file.with_name("flipped.journal")
    copy.write_bytes(content[: at + 8] + b"9" + content[at + 9 :])
    found = audit(copy, expected_head=head)
    assert not found.intact and "altered" in found.broken[0]


def audited(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([INSPECTCTL, "audit", *arguments], capture_output=True, text=True, check=False)


def test_the_command_says_intact_or_broken_by_its_exit_code(whole: tuple[Path, str]) -> None:
    file, head = whole
    intact = audited(file, "--head", head)
    assert intact.returncode == 0
    assert intact.stdout.splitlines() == [
        f"{file}: intact: line line3, rows 1 to {ROWS}, 20 verdicts of 2 starts of the daemon",
        f"head {head}",
    ]
    broken = audited(spoiled(file, ("DELETE FROM journal WHERE id = 7", ())), "--json")
    assert broken.returncode == 1
    told = json.loads(broken.stdout)
    assert told["intact"] is False and any("rows 7 to 7 are missing" in line for line in told["broken"])


def test_what_is_no_journal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("no database " * 1000)
    for file in (text, tmp_path / "missing", tmp_path):
        found = audited(file)
        assert found.returncode == 2
        assert found.stderr.count("\n") == 1 and str(file) in found.stderr


def test_a_head_that_is_none_is_refused(whole: tuple[Path, str]) -> None:
    found = audited(whole[0], "--head", "cafe")
    assert found.returncode == 2 and "64 hexadecimal digits" in found.stderr


@given(
    st.builds(
        Row,
        id=st.integers(1, 2**53),
        kind=st.text(),
        boot=st.none() | st.text(),
        seq=st.none() | st.integers(0, 2**53),
        camera=st.none() | st.text(),
        frame=st.none() | st.integers(0, 2**53),
        written_at=st.text(),
        payload=st.binary(),
        previous=st.binary(min_size=32, max_size=32),
    )
)
def test_the_hash_is_over_what_the_standard_librarys_json_writes(row: Row) -> None:
    *columns, payload, previous = row
    head = json.dumps([*columns, previous.hex()], separators=(",", ":"))
    assert hash_of(row) == hashlib.sha256(head.encode() + b"\n" + payload).digest()


def test_the_documented_program_calculates_the_same_chain(whole: tuple[Path, str]) -> None:
    page = Path(__file__).parents[1] / "docs" / "journal.md"
    program = page.read_text().split("```python\n")[1].split("```")[0]
    file, head = whole

    def checked(journal: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, journal]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked(file).stdout == f"{head}\n"
    assert checked(spoiled(file, ("UPDATE journal SET seq = 99 WHERE id = 5", ()))).returncode == 1
