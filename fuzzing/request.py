"""Requests at the control address, through ``decode_request``."""

from pathlib import Path

from fuzzing.mutation import mutate_json
from fuzzing.samples import REQUESTS
from fuzzing.target import Chance
from verdicts.checks import MalformedMessage
from verdicts.request import decode_request, encode_request


class Target:
    """Every frame is malformed, or a request that can be sent again as the same."""

    documented = (MalformedMessage,)
    longest = 8192
    words = (
        "replay", "replay_since", "acknowledge", "status", "reload", "select", '"schema":1', '"request":',
        '"id":', '"boot":', '"first":', '"last":', '"since":', '"after":', '"name":', '"client":', '"join":',
        '"row":', "null",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        pass

    def seeds(self) -> list[bytes]:
        return [encode_request(request) for request in REQUESTS]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return mutate_json(data, chance)

    def run(self, data: bytes) -> None:
        request = decode_request(data)
        assert decode_request(encode_request(request)) == request
