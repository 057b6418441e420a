"""A line in a process of its own that publishes what a test tells it; as a program it is that process."""

import subprocess
import sys
from typing import Any

import zmq

from verdicts import CameraHealth, Health, Latency, Peak, Verdict, encode

STAMP = "2026-01-31T12:00:00.123456Z"


def a_verdict(seq: int, boot: str = "aa", decision: str = "pass", **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "line": "line3",
        "camera": "top",
        "frame": seq + 100,
        "part": "flange",
        "boot": boot,
        "seq": seq,
        "decision": decision,
        "reason": "deadline" if decision == "fault" else None,
        "score": None if decision == "fault" else 0.5,
        "threshold": 0.25,
        "peak": None if decision == "fault" else Peak(x=12, y=34),
        "captured_at": STAMP,
        "latency_ms": Latency(wait=1.5, infer=20.25, total=22.0),
        "model": "flange-xs",
        "archive": None,
    }
    return Verdict(**values | changes)


def a_health(seq: int, boot: str = "aa", state: str = "running", **changes: Any) -> Health:
    values: dict[str, Any] = {
        "line": "line3",
        "boot": boot,
        "seq": seq,
        "state": state,
        "error": None,
        "cameras": {"top": CameraHealth(state="running", captured=seq, faults=0, error=None)},
        "product": None,
        "engine": "flange-xs 0123abcd",
        "journal": None,
        "subscribers": {},
        "dropped_messages": 0,
        "verdicts": {"pass": seq, "reject": 0, "fault": 0},
        "waiting": 0,
        "uptime_s": 3725.5,
        "sent_at": STAMP,
    }
    return Health(**values | changes)


class LineProcess:
    """Starts the process; ``address`` is where it publishes."""

    def __init__(self, port: int = 0, queue: int = 1000) -> None:
        command = [sys.executable, __file__, str(port), str(queue)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer())
        self.address = f"tcp://127.0.0.1:{self.port}"

    def wait_for_subscriber(self) -> None:
        self._tell("wait")
        assert self._answer() == "subscribed"

    def publish(self, *messages: Verdict | Health | tuple[bytes, ...]) -> None:
        """Send these in one burst; bytes go out as they are."""
        parts = (message if isinstance(message, tuple) else encode(message) for message in messages)
        self._tell("send " + " ".join(",".join(part.hex() for part in message) for message in parts))
        assert self._answer() == "sent"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def _publish_what_is_told(port: int, queue: int) -> None:
    socket = zmq.Context.instance().socket(zmq.XPUB)  # a PUB that shows who subscribes
    socket.sndhwm = queue
    socket.xpub_verbose = True
    socket.bind(f"tcp://127.0.0.1:{port or '*'}")
    print(socket.last_endpoint.rpartition(b":")[2].decode(), flush=True)
    for told in sys.stdin:
        command, *messages = told.split()
        if command == "wait":
            while socket.recv()[0] != 1:
                pass  # someone left
            print("subscribed", flush=True)
        else:
            for parts in [[bytes.fromhex(part) for part in message.split(",")] for message in messages]:
                socket.send_multipart(parts)
            print("sent", flush=True)


if __name__ == "__main__":
    _publish_what_is_told(int(sys.argv[1]), int(sys.argv[2]))
