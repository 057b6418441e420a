"""What the daemon tells systemd, heard on a real notify socket."""

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from line_rig import RunningLine, part_image, running, write_config
from patience import PATIENCE_S

Told = dict[str, str]


class NotifySocket:
    """The service manager's end: a datagram socket on which assignments arrive, one or more at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, patience_s: float = PATIENCE_S) -> Told:
        self._socket.settimeout(patience_s)
        return dict(line.split("=", 1) for line in self._socket.recv(65_536).decode().splitlines())

    def until(self, key: str) -> list[Told]:
        """Hear until this is told; give everything up to it."""
        heard = [self.next()]
        while key not in heard[-1]:
            heard.append(self.next())
        return heard

    def rest(self) -> list[Told]:
        """Give what has already arrived."""
        self._socket.setblocking(False)
        heard: list[Told] = []
        while True:
            try:
                told = self._socket.recv(65_536)
            except BlockingIOError:
                return heard
            heard.append(dict(line.split("=", 1) for line in told.decode().splitlines()))

    def close(self) -> None:
        self._socket.close()


def keys(heard: list[Told]) -> list[str]:
    """Everything but the watchdog's feed, which comes when it comes."""
    return [key for told in heard for key in told if key not in {"WATCHDOG", "STATUS", "MONOTONIC_USEC"}]


@pytest.fixture
def service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    path = tmp_path / "notify"
    notify = NotifySocket(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    yield notify
    notify.close()


@pytest.fixture
def config(line_folder: Path) -> Path:
    part_image(line_folder / "parts" / "0.png", bright=False)
    return write_config(line_folder, {"top": {"source": "parts", "fps": 20, "loop": True}})


def change(config: Path, **keys: object) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | keys, sort_keys=False))


def inspecting(line: RunningLine, beyond: int = 0) -> None:
    line.until(lambda line: len(line.verdicts) > beyond)


def test_ready_is_told_once_the_cameras_are_open(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        assert keys(service_manager.until("READY")) == ["READY"]
        line.until(lambda line: line.health.cameras["top"].state == "running" and bool(line.verdicts))


def test_ready_waits_for_every_camera(config: Path, service_manager: NotifySocket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the connection and never answers
        cameras = yaml.safe_load(config.read_text())["cameras"]
        cameras["side"] = {"source": f"rtsp://127.0.0.1:{mute.getsockname()[1]}/stream"}
        change(config, cameras=cameras)
        with running(config) as line:
            line.until(
                lambda line: (
                    [camera.state for camera in line.health.cameras.values()] == ["running", "opening"]
                )
            )
            assert keys(service_manager.rest()) == []
            line.process.send_signal(signal.SIGHUP)  # the end of this is not the start's
            starting = [service_manager.next() for _ in range(2)]
            assert [set(told) for told in starting] == [{"WATCHDOG", "STATUS"}] * 2


def test_ready_is_never_told_of_a_camera_that_does_not_open(
    config: Path, service_manager: NotifySocket
) -> None:
    change(config, cameras={"top": {"source": "missing.avi"}})
    with running(config) as line:
        assert "missing.avi" in line.until_end()
        assert line.process.returncode != 0
        assert "READY" not in keys(service_manager.rest())


def test_the_watchdog_is_fed_each_second(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        service_manager.until("READY")
        service_manager.until("WATCHDOG")
        inspecting(line)
        begun = len(line.verdicts)
        for _ in range(3):
            assert service_manager.until("WATCHDOG")[-1]["WATCHDOG"] == "1"
        while line.listen(timeout_ms=0):
            pass
        assert len(line.verdicts) - begun > 10, "it is fed with every frame"


def test_the_watchdog_starves_while_the_daemon_hangs(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        service_manager.until("READY")
        service_manager.until("WATCHDOG")
        line.process.send_signal(signal.SIGSTOP)
        service_manager.rest()
        with pytest.raises(TimeoutError):
            service_manager.next(patience_s=2.5)
        line.process.send_signal(signal.SIGCONT)
        service_manager.until("WATCHDOG")


def test_a_camera_that_hangs_does_not_starve_the_watchdog(
    config: Path, service_manager: NotifySocket
) -> None:
    """Its process is killed and started again, which a restart of the service could do no better."""
    change(config, cameras={"top": {"source": "parts", "fps": 20, "loop": True, "stalled_after_s": 2}})
    with running(config) as line:
        service_manager.until("READY")
        inspecting(line)
        (camera,) = line.camera_processes()
        service_manager.rest()
        os.kill(camera, signal.SIGSTOP)
        service_manager.until("WATCHDOG")
        assert camera in line.camera_processes(), "it is fed only after the camera was replaced"
        line.until(lambda line: camera not in line.camera_processes())
        line.until(lambda line: len(line.camera_processes()) == 1)
        inspecting(line, beyond=len(line.verdicts))


def test_stopping_is_told_before_the_end(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        service_manager.until("READY")
        inspecting(line)
        line.stop()
        assert line.process.returncode == 0
        assert keys(service_manager.rest()) == ["STOPPING"]
        assert line.health.state == "stopping"
        assert [verdict.seq for verdict in line.verdicts] == list(
            range(line.verdicts[0].seq, line.health.seq + 1)
        )


def test_a_reload_is_told_from_its_beginning_to_its_end(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        service_manager.until("READY")
        inspecting(line)
        before_us = time.monotonic_ns() // 1000
        change(config, deadline_ms=900)
        line.process.send_signal(signal.SIGHUP)
        reloading = service_manager.until("RELOADING")[-1]
        assert reloading["RELOADING"] == "1"
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert keys(service_manager.until("READY")) == ["READY"]
        inspecting(line, beyond=len(line.verdicts))


def test_a_reload_that_is_refused_ends_as_well(config: Path, service_manager: NotifySocket) -> None:
    with running(config) as line:
        service_manager.until("READY")
        inspecting(line)
        boot = line.health.boot
        change(config, deadline_ms="soon")
        line.process.send_signal(signal.SIGHUP)
        assert keys(service_manager.until("RELOADING")) == ["RELOADING"]
        assert keys(service_manager.until("READY")) == ["READY"]
        inspecting(line, beyond=len(line.verdicts))
        assert line.health.boot == boot
        errors = line.stop()
        assert "line3.yaml" in errors and "deadline_ms" in errors
        assert line.process.returncode == 0


def test_a_reload_that_breaks_ends_as_well(config: Path, service_manager: NotifySocket) -> None:
    """The machine gives the daemon no thread to load with, which no code of ours expects."""
    with running(config) as line:
        service_manager.until("READY")
        inspecting(line)
        status = Path(f"/proc/{line.process.pid}/status").read_text()
        size = int(status.split("VmSize:")[1].split()[0]) * 1024
        _, most = resource.prlimit(line.process.pid, resource.RLIMIT_AS, (size + (4 << 20), -1))
        service_manager.rest()
        line.process.send_signal(signal.SIGHUP)
        assert keys(service_manager.until("READY")) == ["RELOADING", "READY"]
        resource.prlimit(line.process.pid, resource.RLIMIT_AS, (most, most))
        inspecting(line, beyond=len(line.verdicts))
        line.process.send_signal(signal.SIGHUP)  # the next one works
        assert keys(service_manager.until("READY")) == ["RELOADING", "READY"]
        errors = line.stop()
    assert line.process.returncode == 0
    assert "reload refused, the line runs on as before: internal error: RuntimeError: can't start" in errors
    assert errors.count("runs on the new config") == 1
    assert "Traceback" not in errors


def test_a_service_manager_that_hears_nothing_does_not_hang_the_line(
    config: Path, service_manager: NotifySocket
) -> None:
    """Its queue takes a few datagrams; beyond that a send would wait for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(os.environ["NOTIFY_SOCKET"])
        with pytest.raises(BlockingIOError):
            while True:
                other.send(b"STATUS=full")
    with running(config) as line:
        inspecting(line, 30)
        line.stop()
