"""Videos of parts that get lighter, in many formats, as recorders write them."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PICTURES = 20
KEY_EVERY = 5
FORMATS = {
    "parts.ts": ("mpegts", "libx264"),
    "parts.h264": ("h264", "libx264"),
    "parts.mjpeg": ("mjpeg", "mjpeg"),
    "parts.avi": ("avi", "mjpeg"),
    "parts.mp4": ("mp4", "libx264"),
    "parts.gif": ("gif", "gif"),
    "cam1:0800 50%d.mkv": ("matroska", "mpeg4"),
}


def encoded(
    codec: str, pictures: int = PICTURES, **options: str
) -> tuple[av.VideoCodecContext, list[av.Packet]]:
    """Encode pictures of ten, twenty … grey levels, with a pattern on them."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = 64
    encoder.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 25), Fraction(25), KEY_EVERY
    if codec == "libx264":
        encoder.options = {"tune": "zerolatency", "preset": "veryfast"} | options
    packets: list[av.Packet] = []
    pattern = np.random.default_rng(1).integers(0, 12, (64, 64, 1))
    for index in range(pictures):
        pixels = np.repeat(pattern + 10 * (index % PICTURES), 3, 2).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=encoder.pix_fmt)
        frame.pts = index
        packets += encoder.encode(frame)
    return encoder, packets + encoder.encode(None)


def write_video(path: Path, lost: Iterable[int] = (), pictures: int = PICTURES) -> Path:
    """Write the pictures as a video, without some."""
    container, codec = FORMATS[path.name]
    encoder, packets = encoded(codec, pictures)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, encoder.pix_fmt
        for index, packet in enumerate(packets):
            if index not in set(lost):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                output.mux(packet)
    return path
