"""Runs ``inspectd-fleet`` as users do, with real hubs: a NATS server and a PostgreSQL of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from line_rig import COMMANDS, free_address
from patience import PATIENCE_S

NATS = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), None)


def free_port() -> int:
    return int(free_address().rpartition(":")[2])


def until(condition: Callable[[], Any], what: Callable[[], object] = lambda: "") -> Any:
    """Wait until something is so, and give it."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < give_up_s, f"not within {PATIENCE_S:g} s: {what()}"
        time.sleep(0.02)
    return found


class NatsServer:
    """A hub that syncs before it acknowledges."""

    def __init__(self, folder: Path, *, sync: str = "always", more: str = "") -> None:
        assert NATS is not None
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port, self.monitoring = free_port(), free_port()
        self.conf = folder / "nats.conf"
        self.conf.write_text(
            f"listen: 127.0.0.1:{self.port}\nhttp: 127.0.0.1:{self.monitoring}\n"
            f'jetstream {{ store_dir: "{folder}/store", sync_interval: "{sync}" }}\n{more}'
        )
        self.start()

    def start(self) -> None:
        assert NATS is not None
        with (self.folder / "nats.log").open("a") as log:
            self.process = subprocess.Popen([NATS, "-c", self.conf], stderr=log)
        until(self._answers, (self.folder / "nats.log").read_text)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()

    def section(self, **keys: Any) -> dict[str, Any]:
        given = {
            "servers": [f"nats://127.0.0.1:{self.port}"],
            "monitoring": f"http://127.0.0.1:{self.monitoring}",
            "max_gb": 1,
            "timeout_s": 5,
        }
        return {"nats": given | keys}

    def _answers(self) -> bool:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitoring}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class PostgresServer:
    """A database cluster of its own, as the user ``postgres`` where the tests run as root."""

    def __init__(self, folder: Path | None = None) -> None:
        assert POSTGRES is not None
        # Not in pytest's folder: its user is let in there only, and that is not who runs the server.
        self.folder = folder = folder or Path(tempfile.mkdtemp(prefix="inspectd-postgresql-"))
        self.port = free_port()
        self._as: list[str] = []
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = folder / "data"
        command = [POSTGRES.with_name("initdb"), "-D", data, "-U", "inspectd", "-A", "trust", "--no-sync"]
        subprocess.run([*self._as, *map(str, command)], check=True, capture_output=True, cwd="/")
        self.start()

    def start(self, **settings: str) -> None:
        assert POSTGRES is not None
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        with (self.folder / "postgres.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *self._as,
                    *(str(POSTGRES), "-D", str(self.folder / "data")),
                    *(
                        part
                        for key, value in (options | settings).items()
                        for part in ("-c", f"{key}={value}")
                    ),
                ],
                stderr=log,
                cwd="/",
            )
        until(self._answers, (self.folder / "postgres.log").read_text)

    def kill(self) -> None:
        """Kill the server and, with it, what it has begun: without SIGKILL's leftovers it starts again."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def processes(self) -> list[int]:
        """List the server and what it has begun, each of which is a session of its own."""
        begun = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, begun.split())]

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    @property
    def address(self) -> str:
        return f"postgresql://inspectd@127.0.0.1:{self.port}/postgres"

    def section(self, **keys: Any) -> dict[str, Any]:
        return {"postgresql": {"address": self.address, "timeout_s": 5} | keys}

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def write_fleet(folder: Path, hub: dict[str, Any], lines: list[Any], /, **keys: Any) -> Path:
    """Write fleet.yaml; lines are ``DeliveryLine``, or sections."""
    path = folder / "fleet.yaml"
    sections = [
        line if isinstance(line, dict) else {"line": "line3", "control": line.control_address}
        for line in lines
    ]
    given = {"plant": "north", "lines": sections, "hub": hub, "lake": {"folder": "lake", "every_s": 0.5}}
    path.write_text(yaml.safe_dump(given | keys, sort_keys=False, allow_unicode=True))
    return path


def run_fleet(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [COMMANDS / "inspectd-fleet", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def report(config: Path, kind: str, **choice: Any) -> list[dict[str, Any]]:
    """Give the rows of a report."""
    from fleet.report import Choice, query

    names, rows = query(config.parent / "lake", kind, Choice(**choice))
    return [dict(zip(names, row, strict=True)) for row in rows]


class Running:
    """A running ``forward`` or ``lake``."""

    def __init__(self, command: str, config: Path) -> None:
        self.command, self.config = command, config
        self.log_file = config.parent / f"{command}.log"
        self.start()

    def start(self) -> None:
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                [COMMANDS / "inspectd-fleet", self.command, "--config", self.config],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), self.log_file.read_text()

    def status(self) -> dict[str, Any]:
        """Read what it says of itself."""
        file = self.config.parent / "fleet" / f"{self.command}.json"
        content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return content

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until it says something of itself, and give all it says."""
        return until(
            lambda: (status := self.status()) and condition(status) and status,
            lambda: f"{self.status()} {self.log_file.read_text()[-2000:]}",
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@contextmanager
def fleet(command: str, config: Path) -> Iterator[Running]:
    running = Running(command, config)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()
