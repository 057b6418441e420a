"""The two-way line between the daemon and one camera process: one small binary message per packet.

A packet socket has no lock and no shared buffer that a killed process could leave broken, and its other end
reads an end-of-file however the process died. Each message is one byte that says its kind, then fixed fields,
then text. JSON would cost several times as much for each frame, and more of it could be wrong.

The daemon trusts nothing that it receives: `decode` refuses what is not a message, and
`daemon.capture.supervisor.DaemonCamera` refuses what makes no sense at its time.
"""

import json
import math
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pictures.frames import Roi, Size
from pictures.view import Matrix

HEARTBEAT_S: Final = 1.0
"""How often a camera process says that it lives, whether frames come or not."""
LONGEST_TEXT: Final = 1000
"""Characters of a text that a camera process may send."""

_MOST_BYTES: Final = 65_536
_NO_TEXT: Final = 0xFFFF
_FRAME: Final = struct.Struct("<cQiQIIIIIHHB")
_MATRIX: Final = struct.Struct("<6d")
_PLACED, _LOST = 1, 2
_FIRE: Final = struct.Struct("<cIQH")
_OPENED: Final = struct.Struct("<c?II")
_FAILED: Final = struct.Struct("<c??")
_DIGEST_BYTES: Final = 16


class LinkClosed(Exception):
    """The other end is gone."""


class MalformedPacket(Exception):
    """A packet is not a message; the text says why."""


# Daemon → camera process:


class Settings(NamedTuple):
    """The first message: what the process is to do."""

    settings: dict[str, Any]
    """A ``CameraSettings`` as its fields."""
    size: Size
    """The engine's input size."""
    slots: int
    free: list[int]
    next_frame: int
    frozen: bytes | None
    """Digest of the picture at which the process before this one found the camera frozen."""
    reference: str | None = None
    """``Reference.text`` of the part that is looked for; None where parts are judged as they lie."""
    next_picture: int | None = None
    """Number of the first picture to come, where it is another one than that of the frame."""


class Free(NamedTuple):
    """These slots may be written again."""

    slots: tuple[int, ...]


class Fire(NamedTuple):
    """A trigger: take the picture nearest in time."""

    number: int
    """From 1; stands in the frame that answers it."""
    at_ns: int
    """``time.monotonic_ns()`` when it came."""
    part: str | None


class Stop(NamedTuple):
    """Capture nothing more and end."""


# Camera process → daemon:


class Opened(NamedTuple):
    """The camera is open."""

    live: bool
    picture_size: Size | None
    """Of all its pictures; None when it is not known or not the same for all."""


class Arrival(NamedTuple):
    """A captured frame."""

    frame: int
    slot: int | None
    """None: its pixels were not stored, because there was no room or because of ``error``."""
    captured_ns: int
    """``time.monotonic_ns()`` of the capture."""
    part: str | None
    region: Roi | None
    """What part of the camera's picture the slot shows."""
    error: str | None
    placed: Matrix | None = None
    """What takes a point of the reference's picture, in which ``region`` lies, to the camera's; None where
    they are one."""
    lost: bool = False
    """The part was not found, and the frame shows the picture as it lies, to be rejected."""
    trigger: int | None = None
    """Number of the trigger that it answers."""


class Watch(NamedTuple):
    """What a camera that chooses among its pictures has seen since its process began."""

    pictures: int
    empty: int
    """Pictures that show no part; with triggers: that no trigger asked for."""
    parts: int
    """Pictures that were taken to be judged."""
    missed: int
    """Parts that were seen and not taken; with triggers: triggers without a picture."""
    triggers: int
    doubles: int
    """Triggers that came too soon after the one before."""
    speed: tuple[float, float] | None
    """Of the belt, along x and y, in pixels of the camera's picture per second."""
    trouble: str | None
    """Why nothing can be taken now."""


class Heartbeat(NamedTuple):
    """The process lives."""


class Ended(NamedTuple):
    """The source has no more frames."""


class Failed(NamedTuple):
    """The process ends because of an error."""

    error: str
    frozen: bytes | None = None
    """Digest of the picture that came again and again, when that is the error."""
    wrong: bool = False
    """The config asks for something that cannot work: trying again is of no use."""


Message = Settings | Free | Fire | Stop | Opened | Arrival | Watch | Heartbeat | Ended | Failed


_BARE: Final[dict[bytes, Message]] = {b"H": Heartbeat(), b"E": Ended(), b"S": Stop()}


def encode(message: Message) -> bytes:
    """Make the packet of a message. Texts must be as `sendable` leaves them."""
    match message:
        case Arrival(frame, slot, captured_ns, part, region, error, placed, lost, trigger):
            texts = [None if text is None else text.encode() for text in (part, error)]
            lengths = [_NO_TEXT if text is None else len(text) for text in texts]
            slot = -1 if slot is None else slot
            about = (_PLACED if placed is not None else 0) | (_LOST if lost else 0)
            sides = region or (0, 0, 0, 0)
            packet = _FRAME.pack(b"F", frame, slot, captured_ns, *sides, trigger or 0, *lengths, about)
            packet += b"" if placed is None else _MATRIX.pack(*placed)
            packet += (texts[0] or b"") + (texts[1] or b"")
        case Free(slots):
            packet = struct.pack(f"<c{len(slots)}I", b"R", *slots)
        case Fire(number, at_ns, part):
            text = None if part is None else part.encode()
            packet = _FIRE.pack(b"T", number, at_ns, _NO_TEXT if text is None else len(text)) + (text or b"")
        case Watch():
            packet = b"W" + json.dumps(message._asdict()).encode()
        case Opened(live, size):
            packet = _OPENED.pack(b"O", live, *(size or (0, 0)))
        case Failed(error, frozen, wrong):
            packet = _FAILED.pack(b"X", frozen is not None, wrong) + (frozen or b"") + error.encode()
        case Settings():
            content = message._asdict() | {"frozen": message.frozen and message.frozen.hex()}
            packet = b"C" + json.dumps(content).encode()
        case Heartbeat():
            packet = b"H"
        case Ended():
            packet = b"E"
        case Stop():
            packet = b"S"
    return packet


def decode(packet: bytes) -> Message:
    """Read a packet.

    Raises:
        MalformedPacket: it is not a message.
    """
    try:
        match packet[:1]:
            case b"F" | b"T" | b"W" | b"X" as kind:
                return _READERS[kind](packet)
            case b"R":
                return Free(struct.unpack(f"<{(len(packet) - 1) // 4}I", packet[1:]))
            case b"O":
                _, live, height, width = _OPENED.unpack(packet)
                return Opened(live, Size(height, width) if height and width else None)
            case b"H" | b"E" | b"S" if len(packet) == 1:
                return _BARE[packet]
            case b"C":
                content = json.loads(packet[1:])
                content["size"] = Size(*content["size"])
                content["frozen"] = content["frozen"] and bytes.fromhex(content["frozen"])
                return Settings(**content)
    except (struct.error, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise MalformedPacket(f"found {packet[:20]!r}: {error}") from error
    raise MalformedPacket(f"found {packet[:20]!r}, which is not a message")


def _arrival(packet: bytes) -> Arrival:
    _, frame, slot, captured_ns, *region_sides, trigger, part_bytes, error_bytes, about = _FRAME.unpack_from(
        packet
    )
    placed, rest = None, packet[_FRAME.size :]
    if about & _PLACED:
        placed, rest = _MATRIX.unpack_from(rest), rest[_MATRIX.size :]
        if not all(map(math.isfinite, placed)):
            raise ValueError("a place that is not a number")
    part, rest = _text(rest, part_bytes)
    error, rest = _text(rest, error_bytes)
    region = Roi(*region_sides) if all(region_sides[2:]) else None
    is_wrong = rest or slot < -1 or about > _PLACED | _LOST or (about and slot < 0)
    if is_wrong or (slot >= 0) != (region is not None):
        raise ValueError("the fields of this frame contradict each other")
    slot = None if slot < 0 else slot
    lost = bool(about & _LOST)
    return Arrival(frame, slot, captured_ns, part, region, error, placed, lost, trigger or None)


def _fire(packet: bytes) -> Fire:
    _, number, at_ns, length = _FIRE.unpack_from(packet)
    part, rest = _text(packet[_FIRE.size :], length)
    if rest or not number:
        raise ValueError("the fields of this trigger contradict each other")
    return Fire(number, at_ns, part)


def _watch(packet: bytes) -> Watch:
    watch = Watch(**json.loads(packet[1:]))
    if watch.speed is not None:
        x, y = (float(value) for value in watch.speed)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError("a speed must be finite")
        watch = watch._replace(speed=(x, y))
    if any(type(number) is not int or not 0 <= number < 2**53 for number in watch[:6]):
        raise ValueError("counts must be whole numbers")
    if watch.trouble is not None and not isinstance(watch.trouble, str):
        raise ValueError("trouble must be a text")
    return watch


def _text(rest: bytes, length: int) -> tuple[str | None, bytes]:
    if length == _NO_TEXT:
        return None, rest
    if length > len(rest):
        raise ValueError("a text is cut off")
    text = rest[:length].decode()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text is longer than {LONGEST_TEXT} characters")
    return text, rest[length:]


def _failed(packet: bytes) -> Failed:
    _, frozen, wrong = _FAILED.unpack_from(packet)
    digest, rest = b"", packet[_FAILED.size :]
    if frozen:
        digest, rest = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    text, _ = _text(rest, len(rest))
    if not text or len(digest) != (_DIGEST_BYTES if frozen else 0):
        raise ValueError("a failure must say why")
    return Failed(text, digest or None, wrong)


_READERS: Final[dict[bytes, Callable[[bytes], Message]]] = {
    b"F": _arrival,
    b"T": _fire,
    b"W": _watch,
    b"X": _failed,
}


def sendable(text: str) -> str:
    """Make a text that a message can carry: a file's name may be long or hold bytes that are not UTF-8."""
    return text.encode(errors="replace").decode()[:LONGEST_TEXT]


class CameraLink:
    """One end of the line; messages may be sent from any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        # Poll, since select cannot take descriptors from 1024 on.
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """Give the descriptor, for an event loop."""
        return self._socket.fileno()

    def send(self, message: Message) -> bool:
        """Send one message; False when the end is non-blocking and the other one does not read.

        Raises:
            LinkClosed: the other end is gone.
        """
        try:
            self._socket.send(encode(message))
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkClosed from error
        return True

    def wait(self, timeout_ms: int | None) -> bool:
        """Wait until there is something to receive; False when nothing came in time (None: for ever)."""
        return bool(self._poll.poll(timeout_ms))

    def receive(self) -> Message | None:
        """Take the next message; None when none is there.

        Raises:
            LinkClosed: the other end is gone.
            MalformedPacket: what came is not a message.
        """
        try:
            packet = self._socket.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkClosed from error
        if not packet:
            raise LinkClosed
        return decode(packet)

    def close(self) -> None:
        """Close this end; the other one reads an end-of-file."""
        self._socket.close()


def linked_pair() -> tuple[CameraLink, socket.socket]:
    """Make the daemon's end, which never blocks, and the socket that the camera process inherits."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return CameraLink(ours), theirs
