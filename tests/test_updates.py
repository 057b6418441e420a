"""A line takes up signed releases: no other ones, never half of one, and no worse one for long."""

import functools
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from brightness import THRESHOLD
from hypothesis import given
from hypothesis import strategies as st
from line_rig import COMMANDS, REPOSITORY, part_image, write_config

pytest.importorskip("tuf", reason="needs tuf: pip install 'inspectd[update]'")

from in_process import refused
from release_rig import Desk, inspectctl, threshold_of

from daemon.updates import update as updating
from daemon.updates.canary import Tally, is_rise, trouble
from daemon.updates.installed import Installed
from daemon.updates.source import Source
from foundation.errors import InputError, Unavailable

NO_WATCH = updating.Watch(0, 1, None)
CAMERAS = {"top": {"source": "simulated://?width=64&height=64&cached=4", "fps": 50}}


@pytest.fixture
def config(line_folder: Path) -> Path:
    """The config of a line that does not run."""
    folder = line_folder / "line"
    folder.mkdir()
    for name in ("brightness.engine", "brightness.calibration.yaml"):
        shutil.copyfile(line_folder / name, folder / name)
    return write_config(folder, CAMERAS)


@pytest.fixture
def desk(line_folder: Path, config: Path) -> Desk:
    return Desk(line_folder, config.parent, config)


def the_line(config: Path) -> updating.Line:
    """The line, as ``inspectctl update`` sees one that does not run."""
    return updating.Line(Installed(config), None, None, has_process=lambda: False, say=lambda _: None)


def take_up(desk: Desk, config: Path, address: object = None, root: Path | None = None, **given: Any) -> None:
    """Update in this process, without the check, which processes of their own do."""
    line, options = the_line(config), {"again": False, "replace_changed": False} | given
    seen = line.installed.folder / "seen"
    updating.update(
        line, lambda: Source(str(address or desk.repository), seen, root or desk.root), NO_WATCH, **options
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "_check", lambda *_: None)


@pytest.mark.slow
def test_from_the_desk_to_the_line_and_back(desk: Desk, config: Path, line_folder: Path) -> None:
    """With the real commands: init, make, update twice, what is refused, and back."""
    good = part_image(line_folder / "good.png", bright=False)
    adding = inspectctl("golden", "add", "--config", desk.config, "--good", good)
    assert adding.returncode == 0, adding.stderr
    assert "line3: release 1: 5 files" in desk.release("make", desk.config)
    update = ("update", "--config", config, "--from", desk.repository)
    assert "expected --root root.json" in refused(inspectctl(*update))
    done = inspectctl(*update, "--root", desk.root)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "check: in order" in done.stdout and "golden samples: passed" in done.stdout
    assert "does not run now" in done.stdout
    assert "release 1 of line3 is installed already" in inspectctl(*update).stdout
    assert (config.parent / "brightness.calibration.golden/good.png").read_bytes() == good.read_bytes()

    # One that the golden samples refuse: the line keeps what it has.
    assert "release 2" in desk.make(0.001)
    said = refused(inspectctl(*update))
    assert "release 2: " in said and "good.png: expected pass, found reject" in said and "runs on" in said
    assert threshold_of(config) == THRESHOLD
    # One that is not in order: its engine and calibration are not of each other.
    content = yaml.safe_load(desk.config.read_text())
    desk.config.write_text(yaml.safe_dump(content | {"cameras": {"top": {"source": "nowhere"}}}))
    shutil.rmtree(desk.folder / "brightness.calibration.golden")
    desk.make(0.7)
    said = refused(inspectctl(*update))
    assert "release 3: " in said and "nowhere" in said and ".trial" not in said
    assert threshold_of(config) == THRESHOLD

    desk.config.write_text(yaml.safe_dump(content))
    desk.make(0.6)
    assert inspectctl(*update).returncode == 0
    assert threshold_of(config) == 0.6
    assert "has the files of" in inspectctl("update", "--back", "--config", config).stdout
    assert threshold_of(config) == THRESHOLD
    said = refused(inspectctl(*update))
    assert "release 4 of line3 was rolled back here (by hand); expected a newer one, or --again" in said
    assert sorted(file.name for file in config.parent.iterdir()) == [
        "brightness.calibration.golden",
        "brightness.calibration.yaml",
        "brightness.engine",
        "line3.releases",
        "line3.yaml",
    ]


@pytest.mark.usefixtures("unchecked")
def test_what_was_changed_here_is_not_overwritten(desk: Desk, config: Path) -> None:
    calibration = config.parent / "brightness.calibration.yaml"
    before = calibration.read_text()
    desk.make(0.6)
    take_up(desk, config)
    installed = Installed(config)
    assert (installed.folder / "own-1/brightness.calibration.yaml").read_text() == before
    # As the operators' page does it: another file takes the name.
    changed = calibration.read_text().replace("threshold: 0.6", "threshold: 0.61")
    calibration.unlink()
    calibration.write_text(changed)
    with pytest.raises(InputError, match=r"was changed here since release 1.*--replace-changed"):
        take_up(desk, config)
    take_up(desk, config, replace_changed=True)
    assert threshold_of(config) == 0.6
    assert (installed.folder / "own-2/brightness.calibration.yaml").read_text() == changed
    # As an editor does it: through the link. What somebody runs on is not removed.
    calibration.write_text(changed)
    desk.make(0.5)
    take_up(desk, config, replace_changed=True)
    assert threshold_of(config) == 0.5
    updating.go_back(the_line(config))
    assert threshold_of(config) == 0.61
    # A file of the user that lies where a release has one.
    (config.parent / "other.engine").write_bytes(b"mine")
    (desk.folder / "brightness.engine").rename(desk.folder / "other.engine")
    desk.config.write_text(desk.config.read_text().replace("brightness.engine", "other.engine"))
    desk.make(0.4)
    take_up(desk, config, replace_changed=True)
    [kept] = list(installed.folder.glob("own-*/other.engine"))
    assert kept.read_bytes() == b"mine"


def put_back(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


def expired(desk: Desk, monkeypatch: pytest.MonkeyPatch, days: dict[str, int]) -> None:
    from daemon.updates import repository

    with monkeypatch.context() as patched:
        patched.setattr(repository, "DAYS", repository.DAYS | days)
        repository.renew(desk.repository, desk.keys)


def is_refused(
    desk: Desk, config: Path, words: str, kind: type[InputError] = InputError, root: Path | None = None
) -> None:
    """See that an update says these words in one line, and changes nothing."""
    before = threshold_of(config)
    with pytest.raises(InputError, match=words) as caught:
        take_up(desk, config, root=root)
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    assert threshold_of(config) == before


@pytest.mark.usefixtures("unchecked")
def test_what_is_older_or_has_expired_is_refused(
    desk: Desk, config: Path, line_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.make(0.6)
    old = line_folder / "old"
    shutil.copytree(desk.repository, old)
    desk.make(0.5)
    take_up(desk, config)
    good = line_folder / "good-repository"
    shutil.copytree(desk.repository, good)

    says = functools.partial(is_refused, desk, config)
    # Older.
    put_back(desk.repository, old)
    says("is older than what this line has seen of it")
    put_back(desk.repository, good)
    # Expired, each kind of it; a clock that is wrong looks the same.
    for kind in ("timestamp", "snapshot", "targets", "root"):
        expired(desk, monkeypatch, {kind: -1})
        says("has expired.*inspectctl release renew.*the line runs on as it is")
        desk.release("renew")
        take_up(desk, config)


@pytest.mark.usefixtures("unchecked")
def test_what_was_altered_or_is_foreign_is_refused(desk: Desk, config: Path, line_folder: Path) -> None:
    desk.make(0.5)
    take_up(desk, config)
    desk.make(0.4)
    says, good = functools.partial(is_refused, desk, config), line_folder / "good-repository"
    shutil.copytree(desk.repository, good)
    # Altered: metadata, the list, a file.
    stamp = desk.repository / "metadata/timestamp.json"
    content = json.loads(stamp.read_text())
    content["signed"]["version"] += 1
    stamp.write_text(json.dumps(content))
    says("is not signed by the keys that this line knows")
    stamp.write_text("{")
    says("is damaged, or no repository")
    put_back(desk.repository, good)
    [file] = (
        path
        for path in (desk.repository / "targets/files").iterdir()
        if path.read_bytes() == (desk.folder / "brightness.calibration.yaml").read_bytes()
    )
    file.write_text(file.read_text().replace("0.4", "0.9"))
    says("was altered")
    file.unlink()
    says("cannot be reached", Unavailable)
    put_back(desk.repository, good)
    # Foreign: another repository, and its root beside ours; somebody else's line.
    foreign = Desk(line_folder / "line", line_folder, desk.config)
    foreign.make(0.9)
    with pytest.raises(InputError, match="not signed by the keys that this line knows"):
        take_up(desk, config, address=foreign.repository)
    says("not signed by the keys", root=foreign.root)
    kept = Installed(config).folder / "seen/trusted.root.json"
    assert kept.read_bytes() == desk.root.read_bytes()  # the mistake changed nothing
    says("is timestamp.json of a repository; expected its root.json", root=stamp)
    says("is no root.json", root=config)
    text = config.read_text()
    config.unlink()
    config.write_text(text.replace("line: line3", "line: line4"))
    says("holds no release of line line4")
    # The good one is taken up all the same, with keys and roots that were renewed meanwhile.
    config.write_text(text)
    take_up(desk, config)
    assert threshold_of(config) == 0.4
    with pytest.raises(Unavailable, match="no such folder"):
        take_up(desk, config, address=line_folder / "nowhere")
    with pytest.raises(InputError, match="expected a folder, http"):
        take_up(desk, config, address="ftp://host/x")


@pytest.mark.usefixtures("unchecked")
def test_keys_are_changed_and_lines_follow(desk: Desk, config: Path) -> None:
    desk.make(0.6)
    take_up(desk, config)
    stolen = desk.folder.parent / "stolen"
    shutil.copytree(desk.keys, stolen / "keys")
    shutil.copytree(desk.repository, stolen / "repository")
    for role in ("root", "releases", "online"):
        assert f"{role}.pem: new; " in desk.release("change-key", role)
        assert (desk.keys / f"{role}.pem").stat().st_mode & 0o777 == 0o600
        assert (desk.keys / f"{role}.former.pem").read_bytes() == (stolen / f"keys/{role}.pem").read_bytes()
    desk.make(0.7)
    take_up(desk, config)  # it knows the first root alone
    assert threshold_of(config) == 0.7
    # Whoever has the former keys signs in vain, here and at the line.
    done = inspectctl(
        *("release", "make", "--repository", desk.repository, "--keys", stolen / "keys", desk.config)
    )
    assert "is not the key that" in refused(done) and "change-key" in done.stderr
    genuine, desk.repository, desk.keys = desk.repository, stolen / "repository", stolen / "keys"
    desk.release("change-key", "root")
    desk.make(0.9)
    with pytest.raises(InputError, match="not signed by the keys that this line knows"):
        take_up(desk, config, root=genuine / "root.json")
    assert threshold_of(config) == 0.7
    # A new line starts with the newest root, or with the first.
    assert json.loads((genuine / "root.json").read_bytes())["signed"]["version"] == 4


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("unchecked")
def test_from_a_web_server(desk: Desk, config: Path) -> None:
    desk.make(0.6)
    with web_server(desk.repository) as address:
        take_up(desk, config, address=address)
        assert threshold_of(config) == 0.6
    done = inspectctl("update", "--config", config, "--from", address)
    assert "cannot be reached" in (said := refused(done, code=1)) and "refused" in said


def killed_before_step(step: int, desk: Desk, config: Path) -> int:
    """Update in a process that is killed before its ``step``-th change of a name; give its exit code."""

    def run() -> None:
        folder, left = str(config.parent), step

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in {"os.rename", "os.symlink", "os.remove", "os.mkdir", "shutil.rmtree"} and str(
                arguments[0]
            ).startswith((folder, "8", "current", "..")):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        take_up(desk, config)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_killed_at_each_step_the_line_has_all_of_the_old_or_all_of_the_new(desk: Desk, config: Path) -> None:
    def seen() -> tuple[bytes, ...]:
        names = ("line3.yaml", "brightness.engine", "brightness.calibration.yaml")
        return tuple((config.parent / name).read_bytes() for name in names)

    before = config.parent.with_name("before")
    shutil.copytree(config.parent, before)
    old = seen()
    desk.config.write_text(yaml.safe_dump(yaml.safe_load(desk.config.read_text()) | {"max_batch": 2}))
    desk.make(0.6)
    step, outcomes = 0, set()
    while True:
        step += 1
        shutil.rmtree(config.parent)
        shutil.copytree(before, config.parent)
        code = killed_before_step(step, desk, config)
        after = seen()
        assert threshold_of(config) in (THRESHOLD, 0.6)
        assert after == old or (after[0] != old[0] and after[2] != old[2]), f"a mixture at step {step}"
        outcomes.add("old" if after == old else "new")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        # The next update first brings back what there was, if this was still on trial; then it succeeds.
        line = the_line(config)
        with line.installed.locked():
            on_trial = line.installed.state.trial is not None
            updating.finish_interrupted(line)
        assert not on_trial or seen() == old
        take_up(desk, config)
        assert threshold_of(config) == 0.6 and Installed(config).state.trial is None
    assert outcomes == {"old", "new"} and step > 20


PLAYBOOK = shutil.which("ansible-playbook", path=f"{COMMANDS}:{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.skipif(PLAYBOOK is None, reason="ansible-playbook is not installed: pip install ansible-core")
def test_a_playbook_brings_it_to_a_group_of_lines(desk: Desk, config: Path, line_folder: Path) -> None:
    """On one line first; when that fails, no other one is touched."""
    desk.make(0.6)
    second = line_folder / "second" / config.name
    shutil.copytree(config.parent, second.parent)
    inventory = line_folder / "lines.ini"

    def roll_out(root: Path) -> str:
        about = f"ansible_connection=local ansible_python_interpreter={sys.executable} root={root}"
        inventory.write_text(f"[lines]\na {about} line_config={config}\nb {about} line_config={second}\n")
        assert PLAYBOOK is not None
        done = subprocess.run(
            [
                *(PLAYBOOK, "-i", inventory, REPOSITORY / "configs/fleet/update.yml"),
                *("-e", f"inspectctl={COMMANDS / 'inspectctl'}", "-e", f"repository={desk.repository}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {"ANSIBLE_LOCALHOST_WARNING": "0", "HOME": str(line_folder), "LC_ALL": "C.UTF-8"},
        )
        return done.stdout + done.stderr

    said = roll_out(line_folder / "nowhere.json")
    assert "nowhere.json: cannot be read" in said and "failed=1" in said, said
    assert (
        threshold_of(config) == threshold_of(second) == THRESHOLD
        and not (second.parent / "line3.releases").exists()
    )
    said = roll_out(desk.root)
    assert threshold_of(config) == threshold_of(second) == 0.6, said
    assert said.count("changed=1") == 2 and "release 1 is installed" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": "../brightness.engine"}, "expected a file in the folder of the config"),
        ({"engine": "nowhere.engine"}, "nowhere.engine: cannot be read"),
        ({"cameras": {}}, "cameras"),
    ],
)
def test_a_release_of_what_does_not_fit_is_not_made(desk: Desk, change: dict[str, Any], words: str) -> None:
    from daemon.updates.repository import make

    shutil.copyfile(desk.folder / "brightness.engine", desk.folder.parent / "brightness.engine")
    before = sorted(path.name for path in desk.repository.rglob("*"))
    config = yaml.safe_load(desk.config.read_text())
    desk.config.write_text(yaml.safe_dump(config | change))
    with pytest.raises(InputError, match=words):
        make(desk.repository, desk.keys, [desk.config])
    assert sorted(path.name for path in desk.repository.rglob("*")) in (before, sorted([*before, ".lock"]))


def test_wrong_keys_are_one_line(desk: Desk, tmp_path: Path) -> None:
    from daemon.updates.repository import init, make, renew

    other = tmp_path / "other"
    init(other / "repository", other / "keys")
    with pytest.raises(InputError, match=r"is not the key that .* has for releases"):
        make(desk.repository, other / "keys", [desk.config])
    with pytest.raises(InputError, match="is there already"):
        init(desk.repository, tmp_path / "new-keys")
    with pytest.raises(InputError, match=r"online\.pem: the signing key cannot be read"):
        renew(desk.repository, tmp_path)
    with pytest.raises(InputError, match="is no repository"):
        renew(tmp_path, desk.keys)
    with pytest.raises(InputError, match="line line3 is named twice"):
        make(desk.repository, desk.keys, [desk.config, desk.config])
    (desk.keys / "root.pem").unlink()  # which stays at home
    (desk.keys / "releases.pem").unlink()
    assert "timestamp: good until" in desk.release("renew")
    assert (desk.keys / "online.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../b", "a//b", "", ".", "a\\b", "a\nb", "a/./b", "release/"]
)
def test_a_list_cannot_reach_out_of_its_folder(path: str) -> None:
    from daemon.updates.release import parse_release

    file = {"path": path, "sha256": "0" * 64, "size": 1}
    release = {"format_version": 1, "line": "x", "number": 1, "made_at": "", "config": path, "files": [file]}
    with pytest.raises(InputError, match="expected a release"):
        parse_release("list", json.dumps(release).encode())


@given(st.binary(max_size=200))
def test_a_list_of_any_bytes_is_a_release_or_one_line(content: bytes) -> None:
    from daemon.updates.release import parse_release

    with pytest.raises(InputError, match="expected a release"):
        parse_release("list", content)


def test_a_rise_is_told_from_chance() -> None:
    before = Tally(1000, 20, 0)
    assert trouble(before, Tally(3, 3, 0), None) is not None  # three rejects in a row
    assert trouble(before, Tally(200, 8, 0), None) is None  # twice as many
    assert trouble(before, Tally(200, 40, 0), None) is not None
    assert trouble(before, Tally(5, 0, 5), None) is not None
    assert trouble(Tally(1000, 1000, 0), Tally(200, 200, 0), None) is None  # it can rise no more
    assert trouble(Tally(), Tally(200, 200, 0), None) is None  # nothing to compare with
    assert trouble(Tally(), Tally(200, 200, 0), 0.1) is not None
    assert trouble(before, Tally(200, 4, 0), 0.05) is None


@given(st.integers(0, 1000), st.integers(1, 200), st.data())
def test_what_was_usual_is_no_rise(share: int, of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of * share // 1000))
    assert not is_rise(share, 1000, hits, of)
