"""What a camera process says, over a real link to ``DaemonCamera``: packets, each after its length.

A frame whose time is 0 is stamped with the present, as a real one would be; the process itself only sleeps.
"""

import asyncio
import contextlib
import socket
import struct
import time
from pathlib import Path

from daemon.capture import supervisor as supervision
from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import CameraSettings
from daemon.capture.link import Arrival, CameraLink, Ended, Failed, Heartbeat, Message, Opened, encode
from daemon.capture.supervisor import DaemonCamera
from fuzzing.mutation import mutate_bytes
from fuzzing.target import Chance
from pictures.frames import Roi, Size

_LENGTH = struct.Struct("<H")
_STAMP = slice(13, 21)  # of a frame's packet


class Target:
    """Whatever a camera process says, each frame is reported once and in order, and no slot twice."""

    documented: tuple[type[Exception], ...] = ()
    longest = 4096
    words = ("F", "R", "O", "X", "H", "E", "S")

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._theirs: socket.socket | None = None
        supervision.PROCESS[:] = ["sleep", "1000"]  # it is spoken for from here
        setattr(supervision, "linked_pair", self._linked_pair)  # noqa: B010 – imported there, not exported

    def seeds(self) -> list[bytes]:
        region = Roi(0, 0, 64, 64)

        def frame(
            number: int, slot: int | None, part: str | None = None, error: str | None = None
        ) -> Arrival:
            return Arrival(number, slot, 0, part, None if slot is None else region, error)

        opened: list[Message] = [Heartbeat(), Opened(True, Size(64, 64))]
        talks: tuple[list[Message], ...] = (
            [
                *opened,
                frame(1, 0, "flange"),
                frame(2, 1),
                Heartbeat(),
                frame(3, 2),
                frame(4, None, None, "no room"),
            ],
            [*opened, frame(1, 0), frame(3, 1), frame(50, None, None, "torn"), Ended()],
            [Opened(False, None), frame(1, 2), Failed("unplugged")],
            [*opened, frame(1, 0), Failed("frozen", b"0123456789abcdef")],
            [Failed("no such device")],
        )
        return [_joined([encode(message) for message in talk]) for talk in talks]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        packets = list(_packets(data)) or [b"H"]
        at = chance.randrange(len(packets))
        match chance.randrange(8):
            case 0:
                del packets[at]
            case 1:
                packets.insert(chance.randrange(len(packets) + 1), packets[at])
            case 2:
                packets = packets * chance.choice((1, 2, 5))
            case 3 if packets[at][:1] == b"F" and len(packets[at]) > 13:
                number = chance.choice((0, 1, 2, 3, 4, 5, 100, 101, 102, 1000, 2**63, 2**64 - 1))
                packets[at] = b"F" + struct.pack("<Q", number) + packets[at][9:]
            case _:
                packets[at] = mutate_bytes(packets[at], chance)
        return _joined(packets)

    def run(self, data: bytes) -> None:
        self._loop.run_until_complete(self._supervise(list(_packets(data))))

    async def _supervise(self, packets: list[bytes]) -> None:
        sink = _Sink()
        counter = CaptureCounter.create(None, "aa")
        camera = DaemonCamera(
            "top", CameraSettings("x", waiting=2), Size(8, 8), judged_at_once=1, sink=sink, counter=counter
        )
        camera.start()
        assert self._theirs is not None
        with self._theirs as link:
            link.setblocking(False)
            with contextlib.suppress(OSError):  # condemned, or more than fits
                for packet in packets:
                    link.send(_stamped(packet))
            for _ in range(len(packets) // 8 + 3):
                await asyncio.sleep(0)
        sink.check(camera)
        await camera.stop(0)
        sink.check(camera)
        camera.slots.close()
        counter.close()

    def _linked_pair(self) -> tuple[CameraLink, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._theirs = theirs.dup()
        return CameraLink(ours), theirs


class _Sink:
    def __init__(self) -> None:
        self.frames: list[int] = []
        self.slots: list[int] = []

    def arrived(self, camera: str, arrival: Arrival) -> None:
        self.frames.append(arrival.frame)
        if arrival.slot is not None:
            self.slots.append(arrival.slot)

    def camera_changed(self, camera: str) -> None:
        pass

    def check(self, camera: DaemonCamera) -> None:
        assert self.frames == list(range(1, camera.captured + 1)), "each frame once and in order"
        assert len(set(self.slots)) == len(self.slots), "a slot that was not free"
        assert all(0 <= slot < camera.slots.count for slot in self.slots)
        assert camera.error is None or camera.error.isprintable(), f"not one line: {camera.error!r:.200}"


def _stamped(packet: bytes) -> bytes:
    if packet[:1] != b"F" or packet[_STAMP] != bytes(8):
        return packet
    return packet[: _STAMP.start] + struct.pack("<Q", time.monotonic_ns()) + packet[_STAMP.stop :]


def _packets(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= _LENGTH.size:
        length = _LENGTH.unpack_from(data)[0]
        found.append(data[_LENGTH.size : _LENGTH.size + length])
        data = data[_LENGTH.size + length :]
    return [packet for packet in found if packet]


def _joined(packets: list[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(packet)) + packet for packet in packets)
