"""Packets of a video stream made into pictures, or into the word that one is damaged."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn, Protocol, TypeAlias

import av
import numpy as np
from av.codec.context import Flags

from daemon.capture.drivers import BadPicture
from daemon.capture.drivers.ffmpeg_log import complaint
from daemon.capture.drivers.jpeg import decode_jpeg
from pictures.frames import Frame

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"

Undecoded = Callable[[], Frame]
"""A picture to come: H×W×3 uint8, BGR. Raises BadPicture when it is damaged."""

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode+careful+compliant+aggressive"}
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
            yield partial(decode_jpeg, bytes(packet))


class _FFmpegDecoder:
    """Any other codec. A damaged picture spoils what may refer to it, up to the next intact key picture."""

    def __init__(self, context: av.VideoCodecContext, *, upright: bool) -> None:
        # Threads would give each picture some pictures later, and take the cores of the lanes.
        context.thread_count = 1
        context.options = _STRICT
        context.flags |= Flags.output_corrupt  # with their mark: each picture has its verdict
        context.copy_opaque = True
        self._upright = upright
        self._number = 0
        self._spoilt_up_to = 0
        self._reason: str | None = "no key picture came before it"
        self._told: set[int] = set()

    def decode(self, packet: VideoPacket, lost: str | None) -> Iterator[Undecoded]:
        if packet.size:
            self._number += 1
        number = self._number
        packet.opaque = number
        if lost is not None or packet.is_corrupt:
            # What is missing may belong to this packet or to the next.
            self._spoil(number + 1, lost or "a part of the picture's data is missing")
        frames, error = [], None
        try:
            frames = packet.decode()
        except av.FFmpegError as failed:
            error = f"the picture cannot be decoded: {failed.strerror}"
        said = complaint()
        if said is not None or error is not None:
            error = error or "the picture is damaged"
            self._spoil(number, error if said is None else f"{error}: {said}")
        for frame in frames:
            yield from self._judged(frame)
        if error is not None and packet.size and number not in self._told:
            self._told.add(number)
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
            self._reason = None
        if self._reason is None:
            yield partial(_to_bgr, frame, self._upright)
        elif number not in self._told:
            self._told.add(number)
            yield partial(_bad, self._reason)


def _to_bgr(frame: av.VideoFrame, upright: bool) -> Frame:
    pixels = frame.to_ndarray(format="bgr24")
    turns = _TURNED.get(round(frame.rotation), 0) if upright else 0
    return np.ascontiguousarray(np.rot90(pixels, turns), np.uint8)


def _bad(reason: str) -> NoReturn:
    raise BadPicture(reason, None)
