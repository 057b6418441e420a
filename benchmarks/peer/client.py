"""Our end of the pipe to the peer's child process."""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

CHILD = Path(__file__).with_name("child.py")


class PeerFailed(Exception):
    """The peer raised, or its process ended; the line says what it said."""


class Peer:
    """A running child process of the peer. It stays warm from one question to the next.

    Args:
        python: of the peer's environment.
        folder: where the peer keeps its caches and this process what it prints.
        threads: that its libraries may use.
        settings: of its environment, beside those of ours.
    """

    def __init__(
        self, python: Path, folder: Path, threads: int, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._log = folder / "peer.log"
        environment = {**os.environ, **settings, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [python, CHILD.resolve()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment,
                text=True,
            )
        self.pid = self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Let the peer do something and give its answer.

        Args:
            do: name of a method of ``PeerSide``.
            arguments: of that method, as JSON has them.

        Raises:
            PeerFailed: it could not.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise PeerFailed(f"the peer's process ended with exit code {code}: {lines[-1]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"the peer failed in {do}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the child."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
