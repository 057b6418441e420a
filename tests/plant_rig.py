"""Runs ``inspectd-plant`` as users do: a config, a process, and real peers at its other ends."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from line_rig import COMMANDS, free_address
from patience import PATIENCE_S


def free_port() -> int:
    return int(free_address().rpartition(":")[2])


def until(condition: Callable[[], Any], *, within_s: float = PATIENCE_S, what: object = "") -> Any:
    """Wait until something is so, and give it."""
    give_up_s = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up_s, (
            f"not within {within_s:g} s: {what() if callable(what) else what}"
        )
        time.sleep(0.02)
    return found


def write_plant(folder: Path, line: Any = None, **keys: Any) -> Path:
    """Write plant.yaml, and for a ``DeliveryLine`` the config that tells where it listens."""
    if line is not None:
        (folder / "line3.yaml").write_text(
            yaml.safe_dump(
                {
                    "line": "line3",
                    "publish": line.publish_address,
                    "control": line.control_address,
                    "journal": {"file": str(line.journal)},
                }
            )
        )
    path = folder / "plant.yaml"
    config = {"line": "line3.yaml", "metrics": {"listen": f"http://127.0.0.1:{free_port()}"}} | keys
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path


def run_plant(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [COMMANDS / "inspectd-plant", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def complaint(config: Path) -> str:
    """Give the one line that ``--check`` ends with; in this process, as a start takes a second."""
    from foundation.errors import InputError
    from plant.config import load_plant
    from plant.run import check

    with pytest.raises(InputError) as caught:
        check(load_plant(config))
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(config.parent)), said
    return said


class Plant:
    """A running ``inspectd-plant``."""

    def __init__(self, config: Path, environment: dict[str, str] | None = None) -> None:
        self.config = config
        self.address = yaml.safe_load(config.read_text())["metrics"]["listen"]
        self.log_file = config.parent / "plant.log"
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [COMMANDS / "inspectd-plant", "--config", config],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | (environment or {}),
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), self.log

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.address + path, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.get("/healthz")[1])
        return content

    def output(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.health()["outputs"][name]
        return found

    def until(self, name: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until an output fares so."""
        until(lambda: condition(self.output(name)), what=lambda: f"{self.output(name)}\n{self.log}")
        return self.output(name)

    def until_connected(self, name: str) -> None:
        self.until(name, lambda output: output["state"] == "connected")

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def stop(self) -> int:
        """End it in order."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def plant(config: Path, environment: dict[str, str] | None = None) -> Iterator[Plant]:
    running = Plant(config, environment)
    try:
        yield running
    finally:
        running.close()
