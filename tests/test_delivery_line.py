"""The delivery of a whole daemon: cameras, engine, journal, and a gate that acknowledges."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from line_rig import free_address, part_image, running, write_config
from patience import PATIENCE_S

from verdicts import ControlRefused, CurveKeys, LineControl, acknowledged

INSPECTCTL = Path(sys.executable).with_name("inspectctl")


def inspectctl(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [INSPECTCTL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


@pytest.fixture
def config(line_folder: Path) -> Path:
    for number in range(4):
        part_image(line_folder / "parts" / f"{number}.png", bright=number == 3)
    return write_config(
        line_folder,
        {"top": {"source": "parts", "fps": 50, "loop": True}},
        journal={"file": "line3.journal"},
        control=free_address(),
        required_subscribers=["gate"],
    )


def control_of(config: Path) -> str:
    address: str = yaml.safe_load(config.read_text())["control"]
    return address


def test_a_gate_gets_every_verdict_once_over_the_end_of_the_daemon(config: Path) -> None:
    with running(config) as first:
        with acknowledged(control_of(config), line="line3", name="gate", silence_s=PATIENCE_S) as gate:
            received = [next(gate) for _ in range(40)]
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
            with running(config) as second:
                received += [next(gate) for _ in range(80)]
                second.until(
                    lambda line: line.health.subscribers["gate"].present and line.health.state == "running"
                )
                boots = list(dict.fromkeys(verdict.boot for verdict in received))
                assert len(boots) == 2
                for boot in boots:
                    seqs = [verdict.seq for verdict in received if verdict.boot == boot]
                    assert seqs == list(range(1, len(seqs) + 1))
                frames = {(verdict.boot, verdict.camera, verdict.frame) for verdict in received}
                assert len(frames) == len(received)
        assert gate.health is not None


def test_an_absent_required_gate_degrades_the_line(config: Path) -> None:
    with running(config) as line:
        line.until(lambda line: line.health.state == "degraded")
        assert not line.health.subscribers["gate"].present
        with acknowledged(control_of(config), line="line3", name="gate", silence_s=PATIENCE_S) as gate:
            for _ in range(5):
                next(gate)
            while gate.health is None or gate.health.state != "running":
                next(gate)


def test_commands_are_refused_without_keys_and_taken_over_a_guarded_file(config: Path) -> None:
    with running(config) as line:
        line.until(lambda line: line.health.seq > 0)
        with LineControl(control_of(config), timeout_s=PATIENCE_S) as control:
            with pytest.raises(ControlRefused, match="reload needs keys"):
                control.reload()
            assert control.status().line == "line3"
    path = config.parent / "control.sock"
    text = config.read_text().replace(control_of(config), f"ipc://{path}")
    config.write_text(text)
    with running(config) as line:
        line.until(lambda line: line.health.seq > 0)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with LineControl(f"ipc://{path}", timeout_s=PATIENCE_S) as control:
            with pytest.raises(ControlRefused):
                control.select("nothing-of-the-kind")
            control.reload()


def test_a_line_on_all_interfaces_lets_its_clients_in_and_nobody_else(config: Path, tmp_path: Path) -> None:
    for name in ("line3", "gate", "stranger"):
        assert inspectctl("keygen", name, "--out", tmp_path).returncode == 0
    content = yaml.safe_load(config.read_text())
    gate_key = CurveKeys.read(tmp_path / "gate.key_secret", tmp_path / "line3.key")
    published = content["publish"]
    content |= {
        "publish": published.replace("127.0.0.1", "0.0.0.0"),
        "control": content["control"].replace("127.0.0.1", "*"),
        "curve": {
            "secret_key": "line3.key_secret",
            "clients": {"gate": {"key": gate_key.public_key, "control": True}},
        },
    }
    config.write_text(yaml.safe_dump(content))
    keys = ["--server-key", tmp_path / "line3.key", "--key"]
    with subprocess.Popen(
        [INSPECTCTL.with_name("inspectd"), "--config", config], stderr=subprocess.PIPE
    ) as daemon:
        try:
            with acknowledged(
                content["control"].replace("*", "127.0.0.1"),
                line="line3",
                name="gate",
                silence_s=PATIENCE_S,
                curve=gate_key,
            ) as gate:
                assert [next(gate).seq for _ in range(10)] == list(range(1, 11))
            status = inspectctl("status", "--config", config, *keys, tmp_path / "gate.key_secret")
            assert "line      line3" in status.stdout
            for command in ("status", "reload"):
                done = inspectctl(command, "--config", config, *keys, tmp_path / "gate.key_secret")
                assert done.stderr == ""
            replayed = inspectctl(
                "replay", "--since", "1h", "--json", "--config", config, *keys, tmp_path / "gate.key_secret"
            )
            assert len(replayed.stdout.splitlines()) >= 10
            stranger = inspectctl(
                "replay", "--since", "1h", "--config", config, *keys, tmp_path / "stranger.key_secret"
            )
            assert (stranger.returncode, stranger.stdout) == (1, "")
            for question in (["replay", "--since", "1h"], ["status"]):
                without = inspectctl(*question, "--config", config)
                assert without.returncode == 2
                assert "the line has a section curve; expected --key and --server-key" in without.stderr
        finally:
            daemon.terminate()
            assert daemon.stderr is not None
            daemon.stderr.read()
    assert daemon.returncode == 0
