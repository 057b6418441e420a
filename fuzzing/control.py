"""Requests to a real control address, with a real journal behind it, over ZeroMQ.

Two line feeds part the messages, one their frames. After every input the line must still answer.
"""

from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import zmq

from daemon.control.server import Control
from daemon.host.access import Access
from daemon.journal.journal import Journal
from foundation.errors import InputError
from fuzzing.mutation import mutate_json, mutate_parts
from fuzzing.samples import HEALTH, REQUESTS, VERDICT
from fuzzing.target import Chance
from verdicts.health import decode_health
from verdicts.message import encode
from verdicts.request import Status, decode_reply, encode_request
from verdicts.verdict import decode_verdict

_ROWS = 50
_PATIENCE_MS = 3000
_TRIES = 3


class Target:
    """The control address answers whoever asks properly, whatever was sent before."""

    documented: tuple[type[Exception], ...] = ()
    longest = 8192
    words = (
        "\n",
        "\n\n",
        "replay",
        "replay_since",
        "acknowledge",
        "status",
        "reload",
        "select",
        '"join":true',
        "null",
    )

    def __init__(self, folder: Path) -> None:
        journal = Journal(folder / "journal", line="line3", keep_days=1, max_mb=10)
        verdicts = [replace(VERDICT, seq=seq, frame=seq) for seq in range(1, _ROWS + 1)]
        journal.write([(verdict, encode(verdict)[1]) for verdict in verdicts])
        address = f"ipc://{folder}/control"
        self._control = Control(
            address, folder / "journal", commands=_command, access=Access(), resend_after_s=60
        )
        self._control.health(*encode(HEALTH))
        self._control.start()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(address)
        self._ids = count(2**40)

    def seeds(self) -> list[bytes]:
        frames = [encode_request(request) for request in REQUESTS]
        return [*frames, b"\n\n".join(frames)]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return mutate_parts(data, b"\n\n", chance, mutate_json)

    def run(self, data: bytes) -> None:
        for message in data.split(b"\n\n"):
            self._socket.send_multipart(message.split(b"\n"))
        self._must_answer()
        dropped = self._control.dropped_messages
        self._socket.send_multipart((b"no", b"request"))
        self._must_answer()
        assert self._control.dropped_messages == dropped + 1, "what is dropped must be counted"
        for name, subscriber in self._control.subscribers.items():
            assert 0 <= subscriber.unacknowledged <= _ROWS + 1, name

    def _must_answer(self) -> None:
        for _ in range(_TRIES):  # an answer is left out while a hundred others wait for this connection
            asked = next(self._ids)
            self._socket.send(encode_request(Status(asked)))
            while self._socket.poll(_PATIENCE_MS):
                reply, frames = decode_reply(self._socket.recv_multipart())
                for frame in frames:
                    decode_health(frame) if reply.reply == "health" else decode_verdict(frame)
                if reply.id == asked:
                    return
        raise AssertionError("the control address does not answer any more")


def _command(name: str, arguments: dict[str, Any]) -> "Future[str]":
    future: Future[str] = Future()
    if arguments.get("product", "flange") == "flange":
        future.set_result(f"{name}: done")
    else:
        future.set_exception(InputError("there is no such product"))
    return future
