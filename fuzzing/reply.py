"""Answers as a client reads them, through ``decode_reply``; a line feed parts their frames."""

from pathlib import Path

from fuzzing.mutation import mutate_json, mutate_parts
from fuzzing.samples import HEALTH, STAMP, VERDICT
from fuzzing.target import Chance
from verdicts.checks import MalformedMessage
from verdicts.health import decode_health
from verdicts.message import encode
from verdicts.request import Reply, decode_reply, encode_reply
from verdicts.verdict import decode_verdict


class Target:
    """Every answer is malformed, or one that can be sent again as the same."""

    documented = (MalformedMessage,)
    longest = 8192
    words = (
        "page", "joined", "verdicts", "health", "rejoin", "replaced", "done", "refused", '"schema":1',
        '"reply":', '"frames":', '"next":', '"rows":', '"kept_from":', '"text":', "null", "\n",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        pass

    def seeds(self) -> list[bytes]:
        verdict, health = encode(VERDICT)[1], encode(HEALTH)[1]
        answers: tuple[tuple[Reply, list[bytes]], ...] = (
            (Reply("page", 1, 2, next=3, kept_from=STAMP), [verdict, verdict]),
            (Reply("page", 1), []),
            (Reply("verdicts", 0, 2, rows=(4, 5)), [verdict, verdict]),
            (Reply("health", 2, 1), [health]),
            (Reply("refused", 3, text="no such product"), []),
            (Reply("joined", 4), []),
        )
        return [b"\n".join((encode_reply(reply), *frames)) for reply, frames in answers]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return mutate_parts(data, b"\n", chance, mutate_json)

    def run(self, data: bytes) -> None:
        reply, frames = decode_reply(data.split(b"\n"))
        assert decode_reply([encode_reply(reply), *frames]) == (reply, frames)
        for frame in frames:
            decode_health(frame) if reply.reply == "health" else decode_verdict(frame)
