"""Verdict and health messages, through ``decode``: the bytes are the topic, a line feed and the payload."""

from dataclasses import replace
from pathlib import Path

from fuzzing.mutation import mutate_json
from fuzzing.samples import HEALTH, VERDICT
from fuzzing.target import Chance
from verdicts.checks import MalformedMessage
from verdicts.message import decode, encode
from verdicts.verdict import Peak


class Target:
    """Every message is malformed, or one that can be sent again as the same."""

    documented = (MalformedMessage,)
    longest = 8192
    words = (
        "/-/health",
        "/pass",
        "/reject",
        "/fault",
        '"schema":1',
        '"',
        "null",
        "true",
        "{",
        "}",
        "[",
        "]",
        "\\u",
    )

    def __init__(self, folder: Path) -> None:
        pass

    def seeds(self) -> list[bytes]:
        messages = (
            VERDICT,
            replace(
                VERDICT,
                decision="fault",
                reason="deadline",
                score=None,
                peak=None,
                part=None,
                score_parts=None,
            ),
            replace(VERDICT, decision="reject", peak=Peak(0, 65535), archive="rejects/é.png"),
            HEALTH,
            replace(HEALTH, journal=None, subscribers={}, product=None, error=None, cameras={}),
        )
        return [b"\n".join(encode(message)) for message in messages]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        topic, _, payload = data.partition(b"\n")
        return topic + b"\n" + mutate_json(payload, chance)

    def run(self, data: bytes) -> None:
        topic, _, payload = data.partition(b"\n")
        message = decode(topic, payload)
        again = encode(message)
        assert again[0] == topic
        assert decode(*again) == message
