"""What a line sends to a subscriber that acknowledges, over real sockets to ``verdicts.acknowledged``.

Two line feeds part the answers, one their frames.
"""

from dataclasses import replace
from itertools import count
from pathlib import Path

import zmq

from fuzzing.mutation import mutate_json, mutate_parts
from fuzzing.samples import HEALTH, VERDICT
from fuzzing.target import Chance
from verdicts import SubscriberRefused, SubscriberReplaced, VerdictsLost, acknowledged
from verdicts.message import encode
from verdicts.request import Acknowledge, Reply, decode_request, encode_reply


class Target:
    """A subscriber gives every verdict once, tells what is lost, and acknowledges only what it was given."""

    documented = (SubscriberRefused,)
    longest = 8192
    words = (
        "page",
        "joined",
        "verdicts",
        "health",
        "rejoin",
        "replaced",
        "refused",
        '"rows":',
        '"frames":',
        "\n\n",
    )

    def __init__(self, folder: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._addresses = (f"ipc://{folder}/line{number}" for number in count())

    def seeds(self) -> list[bytes]:
        joined, end = [encode_reply(Reply("joined"))], [encode_reply(Reply("replaced"))]
        health = [encode_reply(Reply("health", frames=1)), encode(HEALTH)[1]]

        def verdicts(*seqs: int, boot: str = "aa") -> list[bytes]:
            payloads = [encode(replace(VERDICT, seq=seq, boot=boot))[1] for seq in seqs]
            return [encode_reply(Reply("verdicts", 0, len(seqs), rows=seqs)), *payloads]

        talks = (
            [joined, verdicts(1, 2, 3), health, verdicts(4, 5)],
            [health, joined, verdicts(7), verdicts(7, 8), verdicts(1, boot="bb")],
            [joined, verdicts(1), [encode_reply(Reply("rejoin"))], joined, verdicts(1, 2), end],
        )
        return [b"\n\n".join(b"\n".join(frames) for frames in talk) for talk in talks]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return mutate_parts(
            data, b"\n\n", chance, lambda answer, chance: mutate_parts(answer, b"\n", chance, mutate_json)
        )

    def run(self, data: bytes) -> None:
        address = next(self._addresses)
        with self._context.socket(zmq.DEALER) as line:
            line.linger = 0
            line.bind(address)
            with acknowledged(address, line="line3", name="gate", silence_s=5) as subscription:
                for answer in data.split(b"\n\n"):
                    line.send_multipart(answer.split(b"\n"))
                line.send(encode_reply(Reply("replaced")))  # so that it ends
                last: dict[str, int] = {}
                while True:
                    try:
                        verdict = next(subscription)
                    except VerdictsLost:
                        continue
                    except SubscriberReplaced:
                        break
                    assert verdict.seq > last.get(verdict.boot, 0), "a verdict was given a second time"
                    last[verdict.boot] = verdict.seq
            while line.poll(0):
                said = decode_request(line.recv())
                assert isinstance(said, Acknowledge)
                assert said.row is None or b'"rows"' in data
