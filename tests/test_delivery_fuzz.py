"""Random requests to a real control address: no crash, no hang, and whoever is honest is answered."""

import json
import random
from pathlib import Path

import pytest
import zmq
from delivery_line import DeliveryLine
from patience import PATIENCE_S

from verdicts import LineControl
from verdicts.request import LARGEST, Acknowledge, Replay, ReplaySince, Request, Status, encode_request

_SEEDS = 4


def _honest(chance: random.Random) -> Request:
    number = chance.choice((0, 1, 7, LARGEST))
    return chance.choice(
        (
            Status(number),
            Replay(number, chance.choice(("aa", "bb", "0" * 64)), 1, chance.choice((1, 50, LARGEST))),
            ReplaySince(number, "2026-01-31T12:00:00.123456Z", chance.choice((0, 5, LARGEST))),
            Acknowledge(number, f"n{chance.randrange(100)}", "ab", chance.random() < 0.5, None),
            Acknowledge(number, "n1", "cd", True, chance.choice((0, 3, 10**6, LARGEST))),
        )
    )


def _mutated(chance: random.Random) -> list[bytes]:
    frame = bytearray(encode_request(_honest(chance)))
    match chance.randrange(6):
        case 0:
            for _ in range(chance.randrange(1, 6)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
        case 1:
            del frame[chance.randrange(len(frame)) :]
        case 2:
            content = json.loads(frame)
            content[chance.choice([*content, "more"])] = chance.choice(
                (None, True, -1, 1.5, "", "x" * 1000, [], {}, [[]], 2**70, "\ud800")
            )
            frame = bytearray(json.dumps(content).encode())
        case 3:
            return [bytes(frame), *(chance.randbytes(5) for _ in range(chance.randrange(1, 20)))]
        case 4:
            frame = bytearray(chance.randbytes(chance.randrange(300)))
    return [bytes(frame)]


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_random_requests_do_no_harm(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    line = DeliveryLine(tmp_path)
    try:
        line.judge(1, 60)
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(line.control_address)
        for _ in range(2500):
            socket.send_multipart(_mutated(chance))
            while socket.poll(0):
                socket.recv_multipart()
        with LineControl(line.control_address, timeout_s=PATIENCE_S) as control:
            assert [verdict.seq for verdict in control.replay("aa", 1, 60)] == list(range(1, 61))
            assert control.status().line == "line3"
        snapshot = line.until(lambda snapshot: snapshot["dropped"] > 500)
        assert snapshot["resident_mb"] < 200
        socket.close()
        assert line.stop() == 0
    finally:
        if line.process.poll() is None:
            line.kill()
