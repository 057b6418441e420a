"""Floods a real daemon: ``python -m fuzzing.live_line live_line RUNS SEED FOLDER``.

Requests and subscriptions over ZeroMQ, and bytes that are no ZeroMQ at all over TCP, while a camera delivers
and a subscriber counts. Nothing guides it: what the daemon does with an input is not seen from here.
"""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml
import zmq
from null_engine import SIZE, make_null_engine

from fuzzing import request
from fuzzing.child import Runner
from fuzzing.free_port import free_port
from fuzzing.mutation import mutate_bytes
from fuzzing.target import Chance
from verdicts import LineControl, LineSilent, Lost, Verdict, subscribe
from verdicts.checks import MalformedMessage
from verdicts.request import Status as StatusRequest
from verdicts.request import decode_request, encode_request

_BIN: Final = Path(sys.executable).parent
_REQUEST, _SEVERAL_FRAMES, _SUBSCRIPTION, _BYTES_TO_CONTROL, _BYTES_TO_PUBLISH = range(5)
_CLIENTS: Final = 6
_FPS: Final = 50
_CHECKED_EVERY: Final = 100
_PATIENCE_S: Final = 20.0
# ZMTP 3.1: signature, version, mechanism, not as server; then READY of a DEALER, and a message of one frame.
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL".ljust(22, b"\0") + bytes(33)
_READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


class Target:
    """A daemon judges every frame and answers, whatever comes in on its sockets."""

    documented: tuple[type[Exception], ...] = ()
    longest = 8192
    words: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        engine, calibration = make_null_engine(folder)
        self._ports = {name: free_port() for name in ("publish", "control")}
        self._addresses = {name: f"tcp://127.0.0.1:{port}" for name, port in self._ports.items()}
        config = folder / "line3.yaml"
        content = {
            "line": "line3",
            "engine": engine,
            "calibration": calibration,
            **self._addresses,
            "journal": {"file": "journal"},
            "cameras": {
                "top": {"source": f"simulated://?seed=1&width={SIZE}&height={SIZE}&cached=16", "fps": _FPS}
            },
        }
        config.write_text(yaml.safe_dump(content))
        self.verdicts: list[Verdict] = []
        self.lost: list[Lost] = []
        self._subscription = subscribe(
            self._addresses["publish"], line="line3", silence_s=_PATIENCE_S, on_lost=self.lost.append
        )
        self.daemon = subprocess.Popen([_BIN / "inspectd", "--config", config])
        threading.Thread(target=self._listen, daemon=True).start()
        self._control = LineControl(self._addresses["control"], timeout_s=_PATIENCE_S)
        self.wait_for_verdicts(10)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._clients = [context.socket(zmq.DEALER) for _ in range(_CLIENTS)]
        for client in self._clients:
            client.connect(self._addresses["control"])
        self._subscriber = self._new_subscriber()
        self._runs = self.malformed = 0
        self.answered_ms: list[float] = []

    def seeds(self) -> list[bytes]:
        requests = request.Target(self._folder).seeds()
        zmtp = _GREETING + _READY + b"\0" + bytes((len(requests[0]),)) + requests[0]
        return [
            *(bytes((_REQUEST,)) + frame for frame in requests),
            bytes((_SEVERAL_FRAMES,)) + requests[0] + b"\n" + requests[1],
            bytes((_SUBSCRIPTION,)) + b"\x01line3/",
            bytes((_SUBSCRIPTION,)) + b"\x00line3/",
            bytes((_BYTES_TO_CONTROL,)) + zmtp,
            bytes((_BYTES_TO_CONTROL,)) + b"GET / HTTP/1.1\r\n\r\n",
            bytes((_BYTES_TO_PUBLISH,)) + zmtp.replace(b"\x06DEALER", b"\x03SUB").replace(b"\x19", b"\x16"),
        ]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        kind, rest = data[:1], data[1:]
        if kind[0] == _REQUEST:
            return kind + request.Target(self._folder).mutate(rest, chance)
        return kind + mutate_bytes(rest, chance)

    def run(self, data: bytes) -> None:
        self._runs += 1
        kind, rest = data[0], data[1:]
        client = self._clients[self._runs % _CLIENTS]
        if kind in {_REQUEST, _SEVERAL_FRAMES}:
            frames = rest.split(b"\n")
            client.send_multipart(frames)
            self.malformed += not _is_request(frames)
            while client.poll(0):
                client.recv_multipart()
        elif kind == _SUBSCRIPTION:
            if self._runs % 50 == 0:
                self._subscriber.close()
                self._subscriber = self._new_subscriber()
            with suppress(zmq.Again):  # it was cut off
                self._subscriber.send(rest, zmq.NOBLOCK)
        else:
            port = self._ports["control" if kind == _BYTES_TO_CONTROL else "publish"]
            connection = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
            with connection, suppress(OSError):  # cut off at the first wrong byte
                connection.sendall(rest)
        if self._runs % _CHECKED_EVERY == 0:
            assert self.daemon.poll() is None, f"the daemon ended with {self.daemon.returncode}"
            began_s = time.monotonic()
            self._control.status()
            self.answered_ms.append((time.monotonic() - began_s) * 1000)

    def finish(self) -> dict[str, Any]:
        """See that the line has come to no harm, end it, and give the figures.

        Raises:
            AssertionError: it has.
        """
        self._settle()
        before = len(self.verdicts)
        self.wait_for_verdicts(before + 2 * _FPS)
        arguments = ["--address", self._addresses["publish"], "--line", "line3"]
        status = subprocess.run(
            [_BIN / "inspectctl", "status", *arguments], capture_output=True, text=True, check=False
        )
        assert status.returncode == 0, f"inspectctl status: {status.stdout} {status.stderr}"
        dropped = self._control.status().dropped_messages
        assert dropped >= self.malformed, f"{dropped} dropped messages, at least {self.malformed} expected"
        resident_mb = int(Path(f"/proc/{self.daemon.pid}/statm").read_text().split()[1]) * 4096 / 1e6
        self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(_PATIENCE_S) == 0
        give_up_s = time.monotonic() + _PATIENCE_S
        while (health := self._subscription.health) is None or health.state != "stopping":
            assert time.monotonic() < give_up_s, "no last word"
            time.sleep(0.05)
        captured = sum(camera.captured for camera in health.cameras.values())
        seqs = [verdict.seq for verdict in self.verdicts]
        assert not self.lost and seqs == list(range(1, captured + 1)), "a verdict was lost"
        audit = subprocess.run(
            [_BIN / "inspectctl", "audit", self._folder / "journal"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert audit.returncode == 0, f"inspectctl audit: {audit.stdout} {audit.stderr}"
        return {
            "frames": captured,
            "verdicts": len(seqs),
            "faults": sum(verdict.decision == "fault" for verdict in self.verdicts),
            "malformed_requests": self.malformed,
            "dropped_messages": dropped,
            "slowest_status_ms": round(max(self.answered_ms, default=0.0), 1),
            "resident_mb": round(resident_mb, 1),
        }

    def wait_for_verdicts(self, number: int) -> None:
        """Wait until so many have arrived."""
        give_up_s = time.monotonic() + _PATIENCE_S
        while len(self.verdicts) < number:
            assert time.monotonic() < give_up_s, f"no verdicts after {len(self.verdicts)}"
            time.sleep(0.02)

    def _settle(self) -> None:
        """Wait until everything that was sent as requests has been read: a connection keeps the order."""
        for number, client in enumerate(self._clients):
            asked = 2**50 + number
            client.send(encode_request(StatusRequest(asked)))
            give_up_s = time.monotonic() + _PATIENCE_S
            while f'"id":{asked}'.encode() not in client.recv_multipart()[0]:
                assert time.monotonic() < give_up_s, "a client is not answered any more"

    def _listen(self) -> None:
        with suppress(LineSilent):  # the daemon has ended
            self.verdicts.extend(self._subscription)

    def _new_subscriber(self) -> "zmq.Socket[bytes]":
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        subscriber = context.socket(zmq.XSUB)
        subscriber.linger = 0
        subscriber.connect(self._addresses["publish"])
        return subscriber


def _is_request(frames: list[bytes]) -> bool:
    try:
        decode_request(frames[0])
    except MalformedMessage:
        return False
    return len(frames) == 1


def main() -> None:
    """Flood a daemon with so many inputs."""
    runs, seed, folder = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    scratch = folder / "scratch"
    scratch.mkdir()
    target = Target(scratch)
    try:
        runner = Runner(target, runs, folder)
        chance = random.Random(seed)
        seeds = target.seeds()
        while not runner.is_finished:
            data = chance.choice(seeds)
            for _ in range(chance.choice((1, 1, 2, 4))):
                data = target.mutate(data, chance)
            runner.run(data[: target.longest])
        (folder / "line.json").write_text(json.dumps(target.finish()))
    finally:
        target.daemon.kill()


if __name__ == "__main__":
    main()
