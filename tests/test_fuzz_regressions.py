"""What the fuzzer found, each kept from coming back."""

import re
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S

from foundation.errors import InputError
from foundation.yaml_file import read_yaml


def refused(path: Path, text: str) -> str:
    from daemon.config import load_config

    path.write_text(text)
    began_s = time.process_time()
    with pytest.raises(InputError) as raised:
        load_config(path)
    assert time.process_time() - began_s < 5
    line = str(raised.value)
    assert line.startswith(str(path))
    assert line.isprintable()
    return line


SOUND = "line: a\nengine: e\ncalibration: c\npublish: ipc://x\ncameras: {top: {source: x}}\n"
MERGED_OVER_AND_OVER = "m0: &m0 {x: 1}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
ALIASES_IN_KEYS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("line: !!int ''", "3.yaml:1: line: found '', expected a whole number"),
        ("line: !!float ''", "3.yaml:1: line: found '', expected a number"),
        ("line: a\nx: !!bool y", "3.yaml:2: x: found 'y', expected true or false"),
        ("line: a\nx: !!seq y", "3.yaml:2: not YAML: expected a sequence node"),
        (SOUND + "lanes: 0x" + "f" * 5000, "lanes: found 0xffff"),
        (SOUND + "lanes: " + "9" * 100, "3.yaml:6: lanes: found 999.*, expected a number of at most 64 bits"),
        (SOUND + 'journal: {file: "a\\0"}', "3.yaml:6: journal.file: found a text with a null character"),
        (SOUND + '"li\\nne": 1', r"li\\nne: unknown key"),
        (SOUND + '"\\x1b[2J": 1', r"\\x1b\[2J: unknown key"),
        (SOUND.replace("source: x", 'source: x, "\\0": 1'), r"cameras\.top\.\\x00: found a text with a null"),
        (SOUND + "? " + "k" * 50_000 + "\n: 1", "kkk…$"),
        (MERGED_OVER_AND_OVER, "aliases that expand without end"),
        (ALIASES_IN_KEYS + "? *a19\n: 1", "aliases that expand without end"),
        ("&a {? *a : 1}", "aliases that expand without end"),
        ("line: " + ":".join(["59"] * 30_000), "line: found 59:59"),
        ("x: 1\n" * 20_001, "larger than 100000 bytes"),
    ],
)
def test_configs_that_broke_the_reader_are_refused_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert re.search(expected, refused(tmp_path / "line3.yaml", text))


def test_ordinary_aliases_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "line3.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(path, "keys").content == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}


def test_a_camera_that_was_killed_once_is_not_buried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import sys

    from camera_rig import CameraRig

    from daemon.capture import supervisor as supervision

    monkeypatch.setattr(supervision, "_DYING_S", 1.0)
    rude = Path(__file__).with_name("rude_camera.py")
    monkeypatch.setattr(supervision, "PROCESS", [sys.executable, str(rude), "mute"])

    async def stall_twice() -> list[str | None]:
        rig = CameraRig()
        camera = rig.start("top", source="x", stalled_after_s=0.5)
        await rig.until(lambda: [state for state, _ in rig.states["top"]].count("stalled") == 2)
        await camera.stop(0)
        return [error for state, error in rig.states["top"] if state == "failed"]

    # The timer for a process that does not die was still running when the next process had started.
    assert asyncio.run(stall_twice()) == ["delivered nothing for 0.5 s"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"map_size": (0, 8)}, r"map_size: .*sides of 1 to 65535"),
        ({"input_size": (-64, 64)}, r"input_size: .*sides of 1 to 65535"),
        ({"input_size": (60_000, 60_000), "max_batch": 16}, r"max_batch: .*at most 2147483648 bytes"),
        ({"model": "\x1b[2J" * 2000, "max_batch": 0}, r"max_batch: "),
    ],
)
def test_manifests_that_would_divide_by_zero_or_fill_memory_are_refused(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    import json
    import zipfile

    from test_engine_file import manifest

    from engine_runtime.engine_file import read_manifest

    path = tmp_path / "x.engine"
    content = json.loads(manifest().model_dump_json()) | changes
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(content))
    with pytest.raises(InputError, match=expected) as raised:
        read_manifest(path)
    assert str(raised.value).isprintable()


def test_the_name_of_an_entry_cannot_break_the_line(tmp_path: Path) -> None:
    import zipfile

    from engine_runtime.engine_file import read_manifest

    path = tmp_path / "x.engine"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\nb", "x")
    with pytest.raises(InputError, match=r"found a\\nb$"):
        read_manifest(path)


def altered_journal(folder: Path, column: str, value: object, kind: str) -> Path:
    import sqlite3
    from contextlib import closing

    from line_process import a_verdict

    from daemon.journal.journal import Journal
    from verdicts import encode

    file = folder / "line3.journal"
    folder.mkdir(exist_ok=True)
    journal = Journal(file, line="line3", keep_days=30, max_mb=10)
    journal.note("select", {"boot": "aa", "product": "cover", "configured": "flange"})
    journal.note("retention", {"through": 0, "hash": "00" * 32, "removed": {}})
    journal.write([(verdict, encode(verdict)[1]) for verdict in map(a_verdict, range(1, 5))])
    journal.close()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        last = "SELECT max(id) FROM journal WHERE kind = ?"
        connection.execute(f"UPDATE journal SET {column} = ? WHERE id = ({last})", (value, kind))
    return file


ALTERED = [
    ("payload", 7, "verdict"),
    ("payload", b"{", "verdict"),
    ("payload", b"\xe0", "select"),
    ("payload", b"[]", "select"),
    ("payload", b"{}", "retention"),
    ("payload", b'{"through":0,"hash":"","removed":{"aa":{"seq":[[1]],"frames":{}}}}', "retention"),
    ("seq", b"\xb0", "verdict"),
    ("frame", "x", "verdict"),
    ("written_at", b"2026", "verdict"),
    ("boot", b"aa", "verdict"),
    ("previous", "7", "verdict"),
    ("id", 2**60, "verdict"),
]


def test_a_row_nested_too_deeply_is_told_by_the_audit(tmp_path: Path) -> None:
    from daemon.journal.audit import audit

    payload = b'{"boot":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert audit(altered_journal(tmp_path, "payload", payload, "verdict")).broken
    assert audit(altered_journal(tmp_path / "other", "payload", payload, "select")).broken


@pytest.mark.parametrize(("column", "value", "kind"), ALTERED)
def test_an_altered_journal_is_damaged_and_nothing_else(
    tmp_path: Path, column: str, value: object, kind: str
) -> None:
    from contextlib import suppress
    from datetime import UTC, datetime

    from daemon.journal.audit import audit
    from daemon.journal.journal import Journal
    from daemon.journal.reader import JournalFailed, JournalReader
    from daemon.journal.recovery import unjudged

    file = altered_journal(tmp_path, column, value, kind)
    assert audit(file).broken or (column, kind) == ("payload", "verdict")  # the newest row has no successor
    with JournalReader(file) as reader:
        for read in (
            lambda: [unjudged(reader, boot, "top", 200) for boot in reader.boots()],
            lambda: reader.last_event("select"),
            lambda: list(reader.since(datetime(2026, 1, 1, tzinfo=UTC))),
            lambda: list(reader.verdicts("aa", 1, 100)),
            lambda: reader.last_seq("aa"),
        ):
            with suppress(JournalFailed):
                read()
    with suppress(InputError):
        Journal(file, line="line3", keep_days=30, max_mb=10).close()


@pytest.mark.parametrize("value", [7, b"{", b"{}"])
def test_replay_from_an_altered_journal_is_refused_and_not_left_unanswered(
    tmp_path: Path, value: object
) -> None:
    from concurrent.futures import Future

    from daemon.control.server import Control
    from daemon.host.access import Access
    from verdicts import ControlRefused, LineControl

    file = altered_journal(tmp_path, "payload", value, "verdict")
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(file, isolation_level=None)) as connection:  # then the oldest, too
        connection.execute("UPDATE journal SET payload = ? WHERE kind = 'verdict'", (value,))
    address = f"ipc://{tmp_path}/control"
    with (
        closing(Access()) as access,
        closing(Control(address, file, commands=lambda name, arguments: Future(), access=access)) as control,
    ):
        control.start()
        with (
            LineControl(address, timeout_s=PATIENCE_S) as client,
            pytest.raises(ControlRefused, match="is damaged"),
        ):
            list(client.replay("aa", 1, 10))


def deadly_engine(folder: Path) -> Path:
    """Make an engine with a sound hash whose graph, a convolution without weights, kills OpenVINO."""
    import hashlib

    from onnx import TensorProto, helper

    from engine_runtime.engine_file import read_engine, write_engine

    manifest, payload = read_engine(folder / "brightness.engine")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["quantiles"], ["score"])],
        "deadly",
        [helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [2, 2])],
    )
    payload = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    changes = {"runtime": "openvino", "payload_sha256": hashlib.sha256(payload).hexdigest()}
    write_engine(folder / "deadly.engine", manifest.model_copy(update=changes), payload)
    return folder / "deadly.engine"


def deadly_line(folder: Path) -> dict[str, object]:
    """Make such an engine and its calibration, and give the config's entries that name them."""
    import yaml

    from engine_runtime.engine_file import read_manifest

    deadly = deadly_engine(folder)
    calibration = yaml.safe_load((folder / "brightness.calibration.yaml").read_text())
    calibration["engine_sha256"] = read_manifest(deadly).payload_sha256
    (folder / "deadly.yaml").write_text(yaml.safe_dump(calibration))
    return {"engine": "deadly.engine", "calibration": "deadly.yaml"}


def test_an_engine_that_kills_its_runtime_is_refused_at_the_start(line_folder: Path) -> None:
    import subprocess

    from line_rig import COMMANDS, write_config
    from test_daemon_reload import BELT

    config = write_config(line_folder, {"top": BELT}, **deadly_line(line_folder))
    for arguments in ((), ("--check",)):
        command = [COMMANDS / "inspectd", "--config", config, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"inspectd: {line_folder}/deadly.engine: ")
        assert "when it was tried" in done.stderr or "does not accept it" in done.stderr


def test_an_engine_that_kills_its_runtime_is_refused_by_a_running_line(line_folder: Path) -> None:
    import yaml
    from line_rig import running, write_config
    from test_daemon_reload import BELT, inspectctl, lost_nothing

    deadly = deadly_line(line_folder)
    control = f"ipc://{line_folder}/control"
    config = write_config(
        line_folder,
        {"top": BELT},
        journal={"file": "line3.journal"},
        control=control,
        engine="brightness.engine",
        deadline_ms=10_000,  # the trial may take the processors for a while
    )
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        content = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump(content | deadly))
        done = inspectctl("reload", "--config", config)
        assert done.returncode == 2
        assert "deadly.engine" in done.stderr
        assert "when it was tried" in done.stderr or "does not accept it" in done.stderr
        seen = len(line.verdicts)
        line.until(lambda line: len(line.verdicts) > seen + 20)
        line.stop()
    lost_nothing(line)


def test_a_journals_tables_in_text_that_is_none_are_told_in_one_line(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    from daemon.journal.audit import audit
    from daemon.journal.journal import Journal

    file = altered_journal(tmp_path, "boot", "aa", "select")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        statement = b"CREATE UNIQUE INDEX journal_seq ON journal (boot \xff seq)"
        change = "UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = 'journal_seq'"
        connection.execute(change, (statement,))
    damaged = f"{file}: is damaged: it holds text that is not UTF-8"
    with pytest.raises(InputError, match=f"^{re.escape(damaged)}$"):
        Journal(file, line="line3", keep_days=30, max_mb=10)
    result = audit(file)
    assert not result.intact
    assert damaged in result.broken[0]
