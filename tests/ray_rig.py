"""A Ray cluster of one machine, on loopback, whose head can be killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from fleet_rig import free_port


class RayCluster:
    """Its head, with two cores for tasks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "ray"
        self._sockets = f"/tmp/inspectd-ray-{os.getpid()}"  # their paths must be short
        self.start()

    def start(self) -> None:
        """Start it on ports of its own."""
        client, gcs = free_port(), free_port()
        self.address = f"ray://127.0.0.1:{client}"
        with (self._folder.with_suffix(".log")).open("a") as log:
            self.process = subprocess.Popen(
                [
                    *(Path(sys.executable).parent / "ray", "start", "--head", "--block"),
                    *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={client}"),
                    *("--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"),
                    f"--temp-dir={self._sockets}",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        """List the processes that do tasks."""
        found = subprocess.run(
            ["pgrep", "-s", str(self.process.pid), "-f", "ray::_attempt"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(word) for word in found.stdout.split()]

    def kill(self) -> None:
        """Kill all of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self._sockets, ignore_errors=True)
