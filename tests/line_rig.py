"""Runs ``inspectd`` as users do: a config file, a child process, and a subscriber on its socket."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
import zmq
from brightness import SIZE
from connections import Connections
from patience import PATIENCE_S

from verdicts import Health, Verdict, decode

COMMANDS = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[1]


def free_address() -> str:
    from fuzzing.free_port import free_port  # not for the processes that import this module alone

    return f"tcp://127.0.0.1:{free_port()}"


def part_image(path: Path, *, bright: bool, size: int = SIZE, spot: tuple[int, int] | None = None) -> Path:
    """Draw a dark part, with a white square at ``spot`` (x, y) or in the middle when it is defective."""
    picture = np.full((size, size, 3), 40, np.uint8)
    if bright:
        x, y = spot or (size // 2, size // 2)
        picture[y : y + size // 4, x : x + size // 4] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
    return path


def write_config(folder: Path, cameras: dict[str, Any], **keys: Any) -> Path:
    path = folder / "line3.yaml"
    config = {
        "line": "line3",
        "engine": "brightness.engine",
        "calibration": "brightness.calibration.yaml",
        "publish": free_address(),
        "deadline_ms": 20_000,  # a busy machine alone makes no fault
        "cameras": cameras,
    } | keys
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


class RunningLine:
    """A daemon process, and everything it said, in the order in which it arrived."""

    def __init__(self, config: Path) -> None:
        content = yaml.safe_load(config.read_text())
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.reconnect_ivl = 10  # the daemon binds a moment after this connects
        self._socket.subscribe(b"")
        self._connections = Connections(self._socket)
        self._socket.connect(content["publish"])
        self.verdicts: list[Verdict] = []
        self.healths: list[Health] = []
        self.process = subprocess.Popen(
            [COMMANDS / "inspectd", "--config", config], stderr=subprocess.PIPE, text=True
        )

    @property
    def health(self) -> Health:
        return self.healths[-1]

    def until(self, condition: Callable[["RunningLine"], bool]) -> None:
        """Listen until the condition holds."""
        give_up = time.monotonic() + PATIENCE_S
        while not self.healths or not condition(self):
            assert time.monotonic() < give_up, (
                f"not within {PATIENCE_S} s; last: {self.healths[-1:]}, {self._last_words()}"
            )
            self.listen(timeout_ms=100)

    def _last_words(self) -> str:
        code = self.process.poll()
        if code is None or self.process.stderr is None:
            return "it still runs"
        return f"it ended with {code} and said: {self.process.stderr.read()}"

    def until_end(self) -> str:
        """Listen to the daemon's end and give what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        self._connections.wait_until_gone()
        while self.listen(timeout_ms=0):
            pass
        return errors

    def listen(self, timeout_ms: int) -> bool:
        """Take one message; whether one came in time."""
        if not self._socket.poll(timeout_ms):
            return False
        topic, payload = self._socket.recv_multipart()
        message = decode(topic, payload)
        if isinstance(message, Health):
            self.healths.append(message)
        else:
            self.verdicts.append(message)
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._context.destroy(linger=0)

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        return self.until_end()

    def camera_processes(self) -> list[int]:
        return camera_processes(self.process)


def camera_processes(daemon: subprocess.Popen[Any]) -> list[int]:
    command = ["pgrep", "-P", str(daemon.pid), "-f", "daemon.capture.process"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


@contextmanager
def running(config: Path) -> Iterator[RunningLine]:
    line = RunningLine(config)
    try:
        yield line
    finally:
        line.close()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@contextmanager
def slow_reload(daemon: subprocess.Popen[Any], config: Path) -> Iterator[None]:
    """Have a daemon read its config again, and give it the content at the end of the block."""
    content = config.read_text()
    config.unlink()
    os.mkfifo(config)
    daemon.send_signal(signal.SIGHUP)
    with suppress(BrokenPipeError), config.open("w") as given:  # opens when the daemon reads
        yield
        config.unlink()
        config.write_text(content)  # for what reads it again
        given.write(content)
