"""The file of labels: what it adds up to, and that nothing in it can be altered unseen."""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.database import DatabaseFailed
from dashboard.labels import NOTHING, Labels, Opinion, agreed
from foundation.errors import InputError

USERS = st.sampled_from(["anna", "ben", "cem"])
VERDICTS = st.lists(st.tuples(st.sampled_from(["aa", "bb"]), st.integers(1, 3)), min_size=1, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("label"),
            USERS,
            VERDICTS,
            st.sampled_from(["defect", "false_reject", "unsure", None]),
            st.text(max_size=5),
        ),
        st.tuples(st.just("undo"), USERS),
    ),
    max_size=12,
)


def opinions_of(labels: Labels) -> dict[tuple[str, int], list[tuple[str, str]]]:
    return {
        key: [(said.user, said.label) for said in labels.opinions("line3", *key)]
        for key in sorted(labels.labelled("line3"))
    }


@settings(max_examples=25)
@given(steps=STEPS)
def test_what_holds_now_is_what_the_rows_add_up_to(steps: list[tuple]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "labels"
        labels = Labels(file)
        history: dict[str, list[dict]] = {}
        expected: dict[tuple[str, int], dict[str, str]] = {}
        for step in steps:
            if step[0] == "label":
                _, user, verdicts, label, note = step
                keys = list(dict.fromkeys(verdicts))
                history.setdefault(user, []).append({key: expected.get(key, {}).get(user) for key in keys})
                labels.label(user, "line3", keys, label, note=note)
                for key in keys:
                    expected.setdefault(key, {}).pop(user, None)
                    if label is not None:
                        expected[key][user] = label
            else:
                user = step[1]
                undone = labels.undo(user, "line3")
                assert bool(undone) == bool(history.get(user))
                for key, was in history[user].pop().items() if history.get(user) else ():
                    expected.setdefault(key, {}).pop(user, None)
                    if was is not None:
                        expected[key][user] = was
        holds = {key: sorted(said.items()) for key, said in expected.items() if said}
        assert {key: sorted(said) for key, said in opinions_of(labels).items()} == holds
        assert labels.audit() is None
        labels.close()
        again = Labels(file)
        assert {key: sorted(said) for key, said in opinions_of(again).items()} == holds
        assert again.damaged is None
        again.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "labels"
    labels = Labels(file)
    for seq in range(1, 6):
        labels.label("anna", "line3", [("aa", seq)], "defect", kind="scratch")
    labels.close()
    return file


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET content = replace(content, 'defect', 'unsure') WHERE id = 3",
        "UPDATE entries SET user = 'ben' WHERE id = 2",
        "UPDATE entries SET at = at + 1 WHERE id = 4",
        "DELETE FROM entries WHERE id = 2",
        "DELETE FROM entries WHERE id = 1",
        "INSERT INTO entries SELECT 9, at, user, what, line, content, previous FROM entries WHERE id = 5",
    ],
)
def test_an_altered_row_is_found(file: Path, statement: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    labels = Labels(file)
    assert labels.damaged is not None
    labels.close()


def test_a_row_that_goes_while_the_dashboard_runs_is_found(file: Path) -> None:
    labels = Labels(file)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM entries WHERE id = 5")
    connection.close()
    assert labels.audit() == "rows from 5 were removed"
    labels.close()


def test_two_processes_write_one_chain(file: Path) -> None:
    served, command = Labels(file), Labels(file)
    command.add("root", "user", None, {"name": "ben", "role": "look", "secret": "s"})
    assert served.users().keys() == {"ben"}
    served.label("anna", "line3", [("aa", 9)], "unsure")
    command.add("root", "user", None, {"name": "ben", "role": None})
    assert served.users() == {}
    assert (served.audit(), command.audit(), served.damaged) == (None, None, None)
    served.close()
    command.close()


def test_the_chain_is_as_documented(file: Path) -> None:
    """Anybody can check it with a few lines, as docs/dashboard.md says."""
    import hashlib
    import json

    previous = NOTHING
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT * FROM entries ORDER BY id").fetchall()
    connection.close()
    for row in rows:
        assert row[-1] == previous
        text = json.dumps([*row[:-1], row[-1].hex()], separators=(",", ":"))
        previous = hashlib.sha256(text.encode()).digest()
    assert len(rows) == 5


def test_a_damaged_file_is_one_line(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[:100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(InputError, match="labels: is damaged: "):
        Labels(file)


def test_a_full_disk_changes_nothing(small_disk: Path) -> None:
    labels = Labels(small_disk / "labels")
    labels.label("anna", "line3", [("aa", 1)], "defect")
    with (small_disk / "full").open("wb") as full, pytest.raises(OSError):
        while True:
            full.write(bytes(100_000))
    note = "x" * 400_000
    with pytest.raises(DatabaseFailed, match="labels: cannot be written"):
        labels.label("anna", "line3", [("aa", 1)], "unsure", note=note)
    assert [said.label for said in labels.opinions("line3", "aa", 1)] == ["defect"]
    (small_disk / "full").unlink()
    labels.label("anna", "line3", [("aa", 1)], "unsure")
    assert labels.audit() is None
    labels.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], "none"),
        (["unsure"], "unsure"),
        (["defect", "unsure"], "defect"),
        (["defect", "defect"], "defect"),
        (["defect", "false_reject"], "disputed"),
    ],
)
def test_people_agree_or_not(said: list[str], expected: str) -> None:
    opinions = [Opinion(str(number), label, None, number, "") for number, label in enumerate(said)]
    assert agreed(opinions)[0] == expected
