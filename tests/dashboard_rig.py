"""Runs ``inspectd-dashboard`` as users do: a config, a process, and a browser's requests."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import yaml
from brightness import SIZE
from line_rig import COMMANDS, free_address, write_config
from patience import PATIENCE_S

from dashboard.access import secret_of
from dashboard.labels import Labels


def write_line(folder: Path, **keys: Any) -> Path:
    """Write the config of a line with journal, archive and control; of four parts one is bad, for ever."""
    parts = folder / "parts"
    parts.mkdir()
    grey = np.random.default_rng(0)
    for number in range(40):
        picture = grey.integers(20, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        if number % 4 == 3:
            picture[SIZE // 2 : 3 * SIZE // 4, SIZE // 2 : 3 * SIZE // 4] = 255
        cv2.imwrite(str(parts / f"{number:02d}.png"), picture)
    camera = {"source": "parts", "fps": 50, "loop": True}
    given: dict[str, Any] = {
        "control": "ipc://line3.control",
        "journal": {"file": "line3.journal"},
        "archive": {"folder": "rejects", "max_mb": 50},
    }
    return write_config(folder, keys.pop("cameras", {"top": camera}), **(given | keys))


def write_dashboard(folder: Path, lines: list[Any], **keys: Any) -> Path:
    path = folder / "dashboard.yaml"
    port = free_address().rpartition(":")[2]
    config = {"listen": f"http://127.0.0.1:{port}", "lines": lines, "state": "state"} | keys
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return path


def run_dashboard(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [COMMANDS / "inspectd-dashboard", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def add_users(labels: Path, **roles: str) -> None:
    """Add users, each with the password that ``password_of`` gives."""
    labels.parent.mkdir(exist_ok=True)
    file = Labels(labels)
    for name, role in roles.items():
        file.add("root", "user", None, {"name": name, "role": role, "secret": secret_of(password_of(name))})
    file.close()


def password_of(name: str) -> str:
    return f"{name}s secret"


class Browser:
    """Somebody's browser, logged in or not."""

    def __init__(self, address: str, **options: Any) -> None:
        self.address = address.rstrip("/")
        self.client = httpx.Client(
            base_url=self.address, headers={"Origin": self.address}, timeout=PATIENCE_S, **options
        )
        self.session: dict[str, Any] = {}
        self.look_in()

    def look_in(self) -> dict[str, Any]:
        self.session = self.client.get("/api/session").json()
        self.client.headers["X-CSRF-Token"] = self.session["csrf"] or ""
        return self.session

    def login(self, name: str, password: str | None = None) -> httpx.Response:
        content = {"name": name, "password": password_of(name) if password is None else password}
        answer = self.client.post("/api/login", json=content)
        self.look_in()
        return answer

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.client.get(path, params=query)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.client.post(path, json=content)

    def ok(self, path: str, **query: Any) -> Any:
        """Get what must be there."""
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def done(self, path: str, **content: Any) -> Any:
        """Change what may be changed."""
        answer = self.post(path, **content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, path: str, condition: Callable[[Any], object], **query: Any) -> Any:
        """Ask until the answer is as wanted, and give it."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            answer = self.get(path, **query)
            if answer.status_code == 200 and condition(answer.json()):
                return answer.json()
            assert time.monotonic() < give_up, f"{answer.status_code}: {answer.text[:2000]}"
            time.sleep(0.05)


class Dashboard:
    """A running dashboard."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.address = yaml.safe_load(config.read_text())["listen"]
        self.process = subprocess.Popen(
            [COMMANDS / "inspectd-dashboard", "--config", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        said = self.process.stdout.readline()
        assert said.startswith("http"), self.process.stderr.read()

    def browser(self, **options: Any) -> Browser:
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                return Browser(self.address, **options)
            except httpx.ConnectError:
                assert time.monotonic() < give_up
                time.sleep(0.02)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> tuple[int, str]:
        """End it in order; give its exit code and what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors

    def close(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
        self.process.communicate()


@contextmanager
def dashboard(config: Path) -> Iterator[Dashboard]:
    served = Dashboard(config)
    try:
        yield served
    finally:
        served.close()
