"""Packets of a camera process, through the daemon's ``decode``."""

from pathlib import Path

from daemon.capture.link import (
    Arrival,
    Ended,
    Failed,
    Fire,
    Free,
    Heartbeat,
    MalformedPacket,
    Opened,
    Settings,
    Stop,
    Watch,
    decode,
    encode,
)
from fuzzing.mutation import mutate_bytes, mutate_json
from fuzzing.target import Chance
from pictures.frames import Roi, Size


class Target:
    """Every packet is malformed, or a message that can be sent again as the same."""

    documented = (MalformedPacket,)
    longest = 8192
    words = ("F", "R", "O", "X", "H", "E", "S", "T", "W{", "C{", '"size":', '"frozen":', "\xff\xff")

    def __init__(self, folder: Path) -> None:
        pass

    def seeds(self) -> list[bytes]:
        messages = (
            Arrival(1, 0, 10**9, "flange", Roi(1, 2, 640, 480), None),
            Arrival(2, None, 2 * 10**9, None, None, "é: no room"),
            Free((1, 2, 3)),
            Fire(1, 10**9, "4711"),
            Watch(90, 80, 4, 1, 0, 0, (300.5, -1.0), None),
            Opened(True, Size(480, 640)),
            Opened(False, None),
            Failed("unplugged"),
            Failed("frozen", b"0123456789abcdef"),
            Heartbeat(),
            Ended(),
            Stop(),
            Settings({"source": "/dev/video0", "roi": [1, 2, 3, 4]}, Size(64, 32), 5, [0, 4], 7, b"\0" * 16),
        )
        return [encode(message) for message in messages]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        is_json = data[:1] in {b"C", b"W"}
        return data[:1] + mutate_json(data[1:], chance) if is_json else mutate_bytes(data, chance)

    def run(self, data: bytes) -> None:
        message = decode(data)
        if not isinstance(message, Settings):  # only ever sent by the daemon itself
            assert decode(encode(message)) == message
