"""Packets of a video stream made into pictures, or into the word that one is damaged."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol

import av
import numpy as np
from av.codec.context import Flags

from daemon.capture.drivers import BadPicture
from daemon.capture.drivers.ffmpeg_log import complaint
from daemon.capture.drivers.jpeg import decode_jpeg
from daemon.capture.drivers.nal_units import has_impossible_bytes, length_bytes_of
from pictures.frames import Frame
from pictures.jpeg import JPEG_END

if TYPE_CHECKING:
    VideoPacket = av.Packet[av.VideoStream]
else:
    VideoPacket = av.Packet

Undecoded = Callable[[], Frame]
"""A picture to come: H×W×3 uint8, BGR. Raises BadPicture when it is damaged."""

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode+careful+compliant+aggressive"}
_MOST_DELAYED = 64  # pictures that a decoder may hold back to bring them into order
_TURNED = {90: 1, 180: 2, -180: 2, -90: 3, 270: 3}
"""FFmpeg's angle, anticlockwise, to quarter turns of ``numpy.rot90``."""


class Decoder(Protocol):
    """Decodes one stream, packet by packet."""

    def decode(self, packet: VideoPacket, lost: str | None) -> Iterator[Undecoded]:
        """Give the pictures that are complete with this packet.

        Args:
            packet: the next one; the empty one after the last gives what is left.
            lost: what the reader said about data that is missing just before, or in, this packet.
        """
        ...


def decoder_of(stream: av.VideoStream, *, upright: bool) -> Decoder:
    """Make the decoder of a stream; ``upright``: turn pictures as the file says."""
    if stream.codec_context.name == "mjpeg":
        return _JpegDecoder()
    return _FFmpegDecoder(stream.codec_context, upright=upright)


class _JpegDecoder:
    """Each packet is a JPEG. FFmpeg's own decoder would conceal damage."""

    def decode(self, packet: VideoPacket, lost: str | None) -> Iterator[Undecoded]:
        if lost is not None and not packet.is_corrupt:
            yield partial(_bad, lost)  # one that did not come
        if packet.size:
            yield partial(_whole_jpeg, bytes(packet))


class _FFmpegDecoder:
    """Any other codec. A damaged picture spoils what may refer to it, up to the next intact key picture."""

    def __init__(self, context: av.VideoCodecContext, *, upright: bool) -> None:
        self._context = _strict(context)
        self._upright = upright
        self._has_units = context.name in {"h264", "hevc"}
        self._length_bytes = length_bytes_of(context.extradata, context.name) if self._has_units else 0
        self._number = 0
        self._spoilt_up_to = 0
        self._reason: str | None = "no key picture came before it"
        self._told: deque[int] = deque(maxlen=_MOST_DELAYED)

    def decode(self, packet: VideoPacket, lost: str | None) -> Iterator[Undecoded]:
        if packet.is_keyframe and self._spoilt_up_to:
            yield from self._decoded(None)
            self._context = _fresh(self._context)
            self._told.clear()
        if packet.size:
            self._number += 1
        if lost is not None or packet.is_corrupt:
            # What is missing may belong to this packet or to the next.
            self._spoil(self._number + 1, lost or "a part of the picture's data is missing")
        yield from self._decoded(packet if packet.size else None)

    def _decoded(self, packet: VideoPacket | None) -> Iterator[Undecoded]:
        number, error = self._number, None
        frames: list[av.VideoFrame] = []
        if packet is not None:
            packet.opaque = number
            if self._has_units and has_impossible_bytes(bytes(packet), self._length_bytes):
                error = "the picture holds bytes that no encoder writes"
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as failed:
            error = f"the picture cannot be decoded: {failed.strerror}"
        said = complaint()
        if said is not None or error is not None:
            error = error or "the picture is damaged"
            self._spoil(number, error if said is None else f"{error}: {said}")
        for frame in frames:
            yield from self._judged(frame)
        if error is not None and packet is not None and number not in self._told:
            self._told.append(number)
            yield partial(_bad, self._reason or error)

    def _spoil(self, up_to: int, reason: str) -> None:
        if up_to > self._spoilt_up_to:
            self._spoilt_up_to, self._reason = up_to, reason

    def _judged(self, frame: av.VideoFrame) -> Iterator[Undecoded]:
        number = frame.opaque
        if not isinstance(number, int) or frame.is_corrupt:
            number = number if isinstance(number, int) else self._number
            self._spoil(number, self._reason or "the picture is damaged: FFmpeg had to conceal a part of it")
        elif frame.key_frame and number > self._spoilt_up_to:
            self._reason, self._spoilt_up_to = None, 0
        if self._reason is None:
            yield partial(_to_bgr, frame, self._upright)
        elif number not in self._told:
            self._told.append(number)
            yield partial(_bad, self._reason)


def _strict(context: av.VideoCodecContext) -> av.VideoCodecContext:
    # Threads would give each picture some pictures later, and take the cores of the lanes.
    context.thread_count = 1
    context.options = _STRICT
    context.flags |= Flags.output_corrupt  # with their mark: each picture has its verdict
    context.copy_opaque = True
    return context


def _fresh(context: av.VideoCodecContext) -> av.VideoCodecContext:
    """Start over at a key picture: what FFmpeg had half decoded would come through in the next pictures."""
    if context.extradata is None:
        context.flush_buffers()
        return context
    fresh = av.CodecContext.create(context.name, "r")
    assert isinstance(fresh, av.VideoCodecContext)
    fresh.extradata = context.extradata
    fresh.width, fresh.height = context.width, context.height
    return _strict(fresh)


def _to_bgr(frame: av.VideoFrame, upright: bool) -> Frame:
    pixels = frame.to_ndarray(format="bgr24")
    turns = _TURNED.get(round(frame.rotation), 0) if upright else 0
    return np.ascontiguousarray(np.rot90(pixels, turns), np.uint8)


def _whole_jpeg(data: bytes) -> Frame:
    pixels = decode_jpeg(data)
    after = data[data.rfind(JPEG_END) + len(JPEG_END) :]
    # Some servers count the line's end in; with a part of the next boundary the length was another one.
    if after == b"\r" or after.startswith(b"\r\n-"):
        raise BadPicture("the picture is not as long as was announced", None)
    return pixels


def _bad(reason: str) -> NoReturn:
    raise BadPicture(reason, None)
