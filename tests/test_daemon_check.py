"""``inspectd --check``, beside nothing, beside the running line and beside something else."""

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import COMMANDS, free_address, part_image, write_config
from patience import PATIENCE_S

from daemon.check import check_line
from foundation.errors import InputError
from fuzzing.free_port import free_port
from verdicts import CurveKeys, LineControl, read_health, subscribe

CAMERAS: dict[str, Any] = {"top": {"source": "simulated://?width=128&height=128", "fps": 20}}


def check(config: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMANDS / "inspectd", "--config", config, "--check"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def refused(config: Path) -> str:
    done = check(config)
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    return line


class Daemon:
    """Starts inspectd and waits until its line runs."""

    def __init__(self, config: Path, address: str, curve: CurveKeys | None = None) -> None:
        self.process = subprocess.Popen([COMMANDS / "inspectd", "--config", config], stderr=subprocess.PIPE)
        while read_health(address, line="line3", timeout_s=PATIENCE_S, curve=curve).state != "running":
            assert self.process.poll() is None

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE_S)[1].decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def ipv6() -> str:
    try:
        return f"tcp://[::1]:{free_port('::1')}"
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.fixture
def stranger() -> Iterator[str]:
    """Something else that listens on a port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def test_the_running_lines_own_addresses_are_no_mistake(line_folder: Path, stranger: str) -> None:
    config = write_config(
        line_folder, CAMERAS, control="ipc://control", journal={"file": "j"}, archive={"folder": "rejects"}
    )
    content = yaml.safe_load(config.read_text())
    daemon = Daemon(config, content["publish"])
    try:
        beside = check(config)
        assert beside.returncode == 0, beside.stderr
        assert "in order: line line3" in beside.stdout
        assert "line line3 runs now, and has its addresses itself" in beside.stdout
        assert (line_folder / "control").is_socket()  # still there, and still its own
        with LineControl(f"ipc://{line_folder}/control", timeout_s=PATIENCE_S) as control:
            assert control.status().line == "line3"
        config.write_text(yaml.safe_dump(content | {"line": "line4"}))
        assert "publish: " in (said := refused(config))
        assert "is in use, and not by line line4" in said
        config.write_text(yaml.safe_dump(content | {"publish": free_address()}))
        assert check(config).returncode == 0  # only control is its own now
        config.write_text(yaml.safe_dump(content | {"control": stranger}))
        assert f"control: {stranger} is in use, and not by line line3" in refused(config)
    finally:
        daemon.stop()
        daemon.kill()
    config.write_text(yaml.safe_dump(content))
    alone = check(config)
    assert (alone.returncode, "runs now" in alone.stdout) == (0, False)


def test_a_line_with_keys_is_known_by_its_own(line_folder: Path) -> None:
    subprocess.run([COMMANDS / "inspectctl", "keygen", "line3"], cwd=line_folder, check=True)
    config = write_config(
        line_folder,
        CAMERAS,
        control=free_address(),
        journal={"file": "j"},
        curve={"secret_key": "line3.key_secret"},
    )
    content = yaml.safe_load(config.read_text())
    own = CurveKeys.read(line_folder / "line3.key_secret", line_folder / "line3.key")
    daemon = Daemon(config, content["publish"], own)
    try:
        beside = check(config)
        assert beside.returncode == 0, beside.stderr
        assert "runs now" in beside.stdout
        assert (
            read_health(content["publish"], line="line3", curve=own, timeout_s=PATIENCE_S).dropped_messages
            == 0
        )
        subprocess.run([COMMANDS / "inspectctl", "keygen", "other"], cwd=line_folder, check=True)
        config.write_text(yaml.safe_dump(content | {"curve": {"secret_key": "other.key_secret"}}))
        assert "is in use, and not by line line3" in refused(config)
    finally:
        daemon.kill()


def test_what_is_in_use_by_something_else_is_refused(line_folder: Path, stranger: str) -> None:
    config = write_config(line_folder, CAMERAS, publish=stranger)
    assert f"publish: {stranger} is in use, and not by line line3: expected a free address" in refused(config)


def test_ipv6_is_spoken_everywhere(line_folder: Path, ipv6: str) -> None:
    control = f"tcp://[::1]:{free_port('::1')}"
    config = write_config(line_folder, CAMERAS, publish=ipv6, control=control, journal={"file": "j"})
    assert check(config).returncode == 0
    daemon = Daemon(config, ipv6)
    try:
        with subscribe(ipv6, line="line3", control=control) as subscription:
            assert next(subscription).line == "line3"
        for options in (["--config", config], ["--address", ipv6, "--line", "line3"]):
            done = subprocess.run(
                [COMMANDS / "inspectctl", "status", *options], check=False, timeout=PATIENCE_S
            )
            assert done.returncode == 0
        with LineControl(control, timeout_s=PATIENCE_S) as client:
            assert client.status().line == "line3"
        assert check(config).returncode == 0
    finally:
        daemon.kill()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"publish": "tcp://127.0.0.1:99999"},
            "publish: found 'tcp://127.0.0.1:99999', expected a port from",
        ),
        ({"publish": "tcp://127.0.0.1:0"}, "expected a port from 1 to 65535"),
        ({"control": "tcp://127.0.0.1:-1"}, "control: found 'tcp://127.0.0.1:-1', expected a port from"),
        ({"control": "tcp://127.0.0.1:*"}, "expected a port from 1 to 65535"),
        ({"publish": "tcp://::1:5560"}, "expected tcp://HOST:PORT, with an IPv6 host in brackets"),
        ({"publish": "ipc://nowhere/socket"}, "cannot be bound: there is no folder "),
        ({"publish": "ipc://" + "p" * 100}, "a path of at most 107 bytes"),
        ({"publish": "ipc://@line3"}, "expected ipc:// and the path of a socket file"),
        ({"publish": "ipc://*"}, "expected ipc:// and the path of a socket file"),
        ({"publish": "ipc://s", "control": "ipc://./s"}, "control: found ipc://"),
        (
            {"publish": "tcp://127.0.0.1:5560", "control": "tcp://localhost:5560"},
            "another address than publish",
        ),
        ({"control": "ipc://brightness.engine"}, "brightness.engine is a file or folder"),
        ({"journal": {"file": "nowhere/j"}}, "journal.file: "),
        ({"journal": {"file": "brightness.calibration.yaml"}}, "brightness.calibration.yaml"),
        ({"archive": {"folder": "brightness.engine"}}, "archive.folder: "),
        ({"archive": {"folder": "brightness.engine/rejects"}}, "archive.folder: "),
        ({"preview": {"folder": "brightness.engine"}}, "preview.folder: "),
    ],
)
def test_what_the_line_could_not_open_is_refused(
    line_folder: Path, keys: dict[str, Any], expected: str
) -> None:
    before = (line_folder / "brightness.engine").read_bytes()
    config = write_config(line_folder, CAMERAS, **{"journal": {"file": "j"}} | keys)
    with pytest.raises(InputError) as said:  # the tests around show what the command makes of it
        asyncio.run(check_line(config))
    assert expected in str(said.value)
    assert (line_folder / "brightness.engine").read_bytes() == before
    assert not (line_folder / "rejects").exists()


def test_another_lines_journal_is_refused(line_folder: Path) -> None:
    part_image(line_folder / "parts/0.png", bright=False)
    config = write_config(line_folder, {"top": {"source": "parts"}}, journal={"file": "j"})
    subprocess.run(
        [COMMANDS / "inspectd", "--config", config], check=True, timeout=PATIENCE_S, capture_output=True
    )
    config.write_text(config.read_text().replace("line: line3", "line: line4"))
    assert "journal.file: " in (said := refused(config))
    assert "is the journal of line line3; expected one of line line4" in said


def test_a_region_outside_one_picture_of_a_folder_is_refused(line_folder: Path) -> None:
    part_image(line_folder / "parts/0.png", bright=False, size=200)
    part_image(line_folder / "parts/1.png", bright=False, size=100)
    camera = {"source": "parts", "loop": True, "roi": {"x": 20, "y": 20, "width": 100, "height": 100}}
    config = write_config(line_folder, {"top": camera})
    assert "cameras.top: 1.png: roi 100×100+20+20 does not lie inside the picture of 100×100" in refused(
        config
    )
    (line_folder / "parts/1.png").write_bytes(b"no picture")  # will be a fault
    assert check(config).returncode == 0


def test_a_relative_socket_file_lies_in_the_configs_folder(line_folder: Path, tmp_path: Path) -> None:
    config = write_config(
        line_folder, CAMERAS, publish="ipc://publish", control="ipc://control", journal={"file": "j"}
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = subprocess.Popen([COMMANDS / "inspectd", "--config", config], cwd=elsewhere)
    try:
        health = read_health(f"ipc://{line_folder}/publish", line="line3", timeout_s=PATIENCE_S)
        assert health.line == "line3"
        second = subprocess.run(
            [COMMANDS / "inspectd", "--config", config], capture_output=True, text=True, check=False
        )
        assert second.returncode == 1  # a socket file is not taken away from who listens there
        assert "is in use" in second.stderr
        done = subprocess.run(
            [COMMANDS / "inspectctl", "status", "--config", config],
            cwd=elsewhere,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode in {0, 1}
        read_health(f"ipc://{line_folder}/publish", line="line3", timeout_s=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert (line_folder / "publish").is_socket()  # left behind by the kill, and no hindrance
    assert check(config).returncode == 0
    assert not list(elsewhere.iterdir())


def test_clients_refuse_impossible_ports() -> None:
    for address in ("tcp://127.0.0.1:99999", "tcp://127.0.0.1:0", "tcp://127.0.0.1"):
        with pytest.raises(ValueError, match="address: found"):
            subscribe(address, line="line3")
        done = subprocess.run(
            [COMMANDS / "inspectctl", "status", "--address", address, "--line", "line3"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "expected" in done.stderr
