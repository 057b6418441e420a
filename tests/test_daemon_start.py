"""How a line starts, and with which exit code it does not: 2 for a person, 1 where trying again may help."""

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import COMMANDS, running, write_config
from patience import PATIENCE_S

from daemon import setup
from daemon.config import load_config
from daemon.journal.journal import Journal
from daemon.journal.reader import JournalReader
from daemon.load import load_products
from engine_runtime.environment import environment_of
from foundation.errors import refused_by_system

BELT = {"source": "simulated://?width=64&height=64&cached=4", "fps": 100}


def line_config(folder: Path, **keys: Any) -> Path:
    return write_config(folder, {"top": BELT}, **{"journal": {"file": "line3.journal"}} | keys)


def refusal(config: Path, **options: Any) -> tuple[int, str]:
    """Start a line that cannot start; give its exit code and the one line that it says."""
    done = subprocess.run(
        [COMMANDS / "inspectd", "--config", config],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **options,
    )
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def journal_of(folder: Path, line: str = "line3") -> Path:
    file = folder / "line3.journal"
    Journal(file, line=line, keep_days=90, max_mb=100).close()
    return file


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"engine": "gone.engine"}, "gone.engine: cannot be read: No such file"),
        ({"engine": "."}, "line3.yaml: engine: /"),
        ({"calibration": "."}, "line3.yaml: calibration: /"),
        ({"calibration": "gone.yaml"}, "gone.yaml: cannot be read: No such file"),
        ({"calibration": "brightness.engine"}, "brightness.engine: "),
        ({"lanes": 0}, "lanes: "),
        ({"trusted_keys": ["gone.pem"]}, "gone.pem: trusted_keys: cannot be read: No such file"),
        ({"curve": {"secret_key": "gone.key_secret"}}, "curve.secret_key: "),
        ({"journal": {"file": "gone/line3.journal"}}, "its folder does not exist"),
        ({"journal": {"file": "brightness.engine"}}, "brightness.engine: "),
        ({"archive": {"folder": "brightness.engine"}}, "archive.folder: "),
    ],
)
@pytest.mark.parametrize("policy", ["fault", "continue"])
def test_what_a_person_has_to_mend(
    line_folder: Path, keys: dict[str, Any], expected: str, policy: str
) -> None:
    code, said = refusal(line_config(line_folder, on_journal_error=policy, **keys))
    assert expected in said
    assert code == 2, said


def test_a_journal_of_another_line_is_for_a_person(line_folder: Path) -> None:
    journal_of(line_folder, "line4")
    code, said = refusal(line_config(line_folder, on_journal_error="continue"))
    assert (code, "is the journal of line line4" in said) == (2, True)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a journal as another inspectd does."""
    with file.with_name(f"{file.name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("policy", ["fault", "continue"])
def test_the_journal_of_a_line_that_runs_is_not_shared(line_folder: Path, policy: str) -> None:
    """A second line without a journal would count its frames where the first one counts its own."""
    with locked(journal_of(line_folder)):
        code, said = refusal(line_config(line_folder, on_journal_error=policy))
    assert (code, "another inspectd writes this journal" in said) == (1, True)


def test_without_the_journal_nobody_knows_which_product_is_selected(line_folder: Path) -> None:
    config = line_config(line_folder, on_journal_error="continue")
    content = yaml.safe_load(config.read_text())
    product = {key: content.pop(key) for key in ("engine", "calibration")}
    config.write_text(yaml.safe_dump(content | {"products": {"flange": product, "washer": product}}))
    with contextlib.closing(sqlite3.connect(journal_of(line_folder), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, said = refusal(config)
    assert (code, "which product was selected" in said) == (1, True)


def test_a_machine_that_is_out_of_descriptors_may_have_some_later(line_folder: Path) -> None:
    config = line_config(line_folder)

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    code, said = refusal(config, preexec_fn=few)
    assert code == 1, said


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, 1),
        (errno.EACCES, 1),
        (errno.EROFS, 1),
        (errno.EIO, 1),
        (errno.ESTALE, 1),
        (errno.ENOENT, 2),
        (errno.EISDIR, 2),
        (errno.ENAMETOOLONG, 2),
    ],
)
def test_what_the_system_refuses(number: int, code: int) -> None:
    assert refused_by_system("no", OSError(number, os.strerror(number))).exit_code == code


@pytest.mark.parametrize(
    ("ran_by", "trials"), [(None, 1), ("the same", 0), ("onnxruntime 1.0 on another CPU", 1)]
)
def test_an_engine_is_tried_once_for_each_runtime_and_device(
    line_folder: Path, monkeypatch: pytest.MonkeyPatch, ran_by: str | None, trials: int
) -> None:
    config = line_config(line_folder)
    product = load_products(load_config(config), config)[None]
    journal = Journal(line_folder / "line3.journal", line="line3", keep_days=90, max_mb=100)
    ran_by = environment_of(product.manifest) if ran_by == "the same" else ran_by
    proven = {} if ran_by is None else {product.manifest.payload_sha256: ran_by}
    # An older inspectd wrote down the hashes alone.
    hashes = {str(product.engine): product.manifest.payload_sha256}
    journal.note("start", {"boot": "aa", "sha256": hashes, "proven": proven})
    journal.close()
    tried: list[Path] = []
    monkeypatch.setattr(setup, "try_out", lambda path, *_: tried.append(path))
    setup.load_setup(config).close()
    assert tried == [product.engine] * trials


def test_a_start_notes_what_it_read_and_by_what_its_engine_ran(line_folder: Path) -> None:
    config = line_config(line_folder)
    content = config.read_bytes()
    config.unlink()
    os.mkfifo(config)  # a second read of it would wait for ever
    daemon = subprocess.Popen([COMMANDS / "inspectd", "--config", config], stderr=subprocess.PIPE, text=True)
    with daemon:
        config.write_bytes(content)
        assert daemon.stderr is not None
        assert any("running, verdicts on" in line for line in daemon.stderr)
        daemon.terminate()
    assert daemon.returncode == 0
    with JournalReader(line_folder / "line3.journal") as reader:
        note = reader.last_event("start")
    assert note is not None
    product = load_products(load_config(_written(config, content)), config)[None]
    assert note["sha256"] == {
        str(config): hashlib.sha256(content).hexdigest(),
        str(product.calibration): hashlib.sha256(product.calibration.read_bytes()).hexdigest(),
        str(product.engine): product.manifest.payload_sha256,
    }
    assert note["proven"] == {product.manifest.payload_sha256: environment_of(product.manifest)}


def _written(path: Path, content: bytes) -> Path:
    path.unlink()
    path.write_bytes(content)
    return path


def test_a_sighup_ends_no_daemon_that_has_only_begun_to_start(line_folder: Path) -> None:
    with running(line_config(line_folder)) as line:
        status = Path(f"/proc/{line.process.pid}/status")

        def takes_it() -> bool:
            words = dict(line.split(":\t") for line in status.read_text().splitlines() if ":\t" in line)
            return bool((int(words["SigIgn"], 16) | int(words["SigCgt"], 16)) & 1)

        while not takes_it():  # until then no line of ours has run
            assert line.process.poll() is None
        while not line.healths:
            assert line.process.poll() is None
            line.process.send_signal(signal.SIGHUP)
            line.listen(timeout_ms=20)
        line.until(lambda line: len(line.verdicts) > 5)
        line.stop()
    assert line.process.returncode == 0
