"""A camera process that breaks the rules of its link: ``rude_camera.py RUDENESS LINK SLOTS COUNTER``.

It opens as a good one and delivers two frames, then does what it was asked to do and lives on in silence.
"""

import socket
import sys
import time
from typing import Any

from daemon.capture.counter import CaptureCounter
from daemon.capture.link import Arrival, CameraLink, Ended, Free, Heartbeat, Opened, Settings, encode
from pictures.frames import Roi, Size


def a_frame(number: int, slot: int | None = None, **changes: Any) -> Arrival:
    region = None if slot is None else Roi(0, 0, 64, 64)
    return Arrival(number, slot, time.monotonic_ns(), None, region, None)._replace(**changes)


def packets(rudeness: str, frame: int, slot: int) -> list[bytes]:
    """What follows after two good frames; ``frame`` and ``slot`` would be the next good ones."""
    if rudeness == "slot-in-use":
        return [encode(a_frame(frame, slot)), encode(a_frame(frame + 1, slot))]
    rubbish = {
        "noise": b"\x93NUMPY rubbish",
        "empty-frame": b"F",
        "long": b"F" + bytes(60_000),
        "text": encode(a_frame(frame, part="x" * 10))[:-1],
        "not-utf8": encode(a_frame(frame, part="xy"))[:-2] + b"\xff\xfe",
    }
    if rudeness in rubbish:
        return [rubbish[rudeness]]
    message: Any = {
        "daemons-word": Free((1, 2)),
        "opened-twice": Opened(True, None),
        "frame-again": a_frame(frame - 2),
        "frame-far": a_frame(frame + 10**9),
        "slot-range": a_frame(frame, 10**6),
        "future": a_frame(frame, captured_ns=time.monotonic_ns() + 10**10),
        "past": a_frame(frame, captured_ns=1),
        "after-end": Ended(),
    }[rudeness]
    return [encode(message), encode(a_frame(frame))]


def main() -> None:
    rudeness = sys.argv[1]
    end = socket.socket(fileno=int(sys.argv[2]))
    counter = CaptureCounter(int(sys.argv[4]))
    link = CameraLink(end)
    link.wait(None)
    told = link.receive()
    assert isinstance(told, Settings)
    link.send(Heartbeat())
    link.send(Opened(True, Size(64, 64)))
    for ahead in range(2):
        counter.captured = told.next_frame + ahead
        link.send(a_frame(told.next_frame + ahead, told.free[ahead]))
    if rudeness == "count":
        counter.captured = 2**60
        return
    if rudeness == "mute":
        time.sleep(60)
    while rudeness in {"flood", "silent"}:
        link.send(Heartbeat())
        time.sleep(1 if rudeness == "silent" else 0)
    counter.captured = told.next_frame + 2
    for packet in packets(rudeness, told.next_frame + 2, told.free[2]):
        end.send(packet)
    time.sleep(60)


if __name__ == "__main__":
    main()
