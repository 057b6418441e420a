"""What no encoder writes is told, and no sound picture of any encoder is taken for damaged."""

import io
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from daemon.capture.drivers import BadPicture
from daemon.capture.drivers.jpeg import decode_jpeg
from pictures.frames import Frame
from pictures.jpeg import fault_of_jpeg

SAMPLINGS = [0x411111, 0x221111, 0x211111, 0x121111, 0x111111]
HUFFMAN, QUANTISERS = b"\xff\xc4", b"\xff\xdb"


def pictures() -> list[Frame]:
    chance = np.random.default_rng(3)
    slope = np.broadcast_to(np.linspace(0, 255, 88, dtype=np.uint8)[:, None, None], (88, 120, 3))
    return [
        chance.integers(0, 256, (64, 80, 3)).astype(np.uint8),
        np.clip(slope + chance.normal(0, 5, slope.shape), 0, 255).astype(np.uint8),
        np.full((33, 17, 3), 200, np.uint8),
        np.kron(chance.integers(0, 2, (9, 12, 3)) * 255, np.ones((8, 8, 1))).astype(np.uint8),
        np.zeros((1, 1, 3), np.uint8),
    ]


def by_opencv(picture: Frame) -> Iterator[bytes]:
    for quality in (1, 8, 30, 50, 75, 85, 90, 94, 95, 97, 98, 99, 100):
        yield encoded(picture, cv2.IMWRITE_JPEG_QUALITY, quality)
    for quality in (10, 60, 90):
        yield encoded(picture, cv2.IMWRITE_JPEG_LUMA_QUALITY, quality, cv2.IMWRITE_JPEG_CHROMA_QUALITY, 95)
    for option in (cv2.IMWRITE_JPEG_OPTIMIZE, cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL):
        for sampling in SAMPLINGS:
            yield encoded(picture, option, 1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
    yield encoded(picture[:, :, 0])


def encoded(picture: Frame, *options: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, options)[1].tobytes())


def by_pillow(picture: Frame) -> Iterator[bytes]:
    gentle = [list(range(2, 66)), list(range(3, 67))]
    options: list[dict[str, object]] = [
        {"quality": quality, "subsampling": sampling, "progressive": progressive, "optimize": optimise}
        for quality in (20, 75, 92)
        for sampling in (0, 1, 2)
        for progressive in (False, True)
        for optimise in (False, True)
    ]
    options += [{"qtables": tables} for tables in ("web_low", "web_high", gentle)]
    options += [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"keep_rgb": True}]
    options += [{"exif": Image.Exif().tobytes(), "comment": b"\0" * 99, "icc_profile": bytes(200)}]
    for mode in ("RGB", "L"):
        for option in options:
            file = io.BytesIO()
            Image.fromarray(picture).convert(mode).save(file, "JPEG", **option)  # type: ignore[arg-type]
            yield file.getvalue()


def by_ffmpeg(picture: Frame) -> Iterator[bytes]:
    for pix_fmt in ("yuvj420p", "yuvj422p", "yuvj444p"):
        for huffman in ("default", "optimal"):
            for quality in (1, 2, 3, 5, 9, 15, 31):
                encoder = av.CodecContext.create("mjpeg", "w")
                assert isinstance(encoder, av.VideoCodecContext)
                encoder.height, encoder.width = picture.shape[:2]
                encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 25)
                encoder.options = {"qmin": str(quality), "qmax": str(quality), "huffman": huffman}
                frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format=pix_fmt)
                yield b"".join(bytes(packet) for packet in encoder.encode(frame) + encoder.encode(None))


@pytest.mark.parametrize("encoder", [by_opencv, by_pillow, by_ffmpeg])
def test_no_sound_picture_is_taken_for_damaged(encoder: object) -> None:
    assert callable(encoder)
    for picture in pictures():
        for whole in encoder(picture):
            assert fault_of_jpeg(whole, thorough=True) is None
            decode_jpeg(whole)


def test_gstreamer_writes_sound_pictures() -> None:
    gi = pytest.importorskip("gi", reason="PyGObject is not installed")
    try:
        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError):
        pytest.skip("GStreamer's binding is not installed")
    Gst.init(None)
    if Gst.ElementFactory.find("jpegenc") is None:
        pytest.skip("GStreamer's JPEG encoder is not installed")
    for pattern in ("smpte", "snow", "ball", "checkers-8"):
        for quality in (10, 85, 97):
            pipeline = Gst.parse_launch(
                f"videotestsrc num-buffers=2 pattern={pattern} ! video/x-raw,width=320,height=240"
                f" ! jpegenc quality={quality} ! appsink name=sink sync=false"
            )
            pipeline.set_state(Gst.State.PLAYING)
            for _ in range(2):
                buffer = pipeline.get_by_name("sink").emit("pull-sample").get_buffer()
                decode_jpeg(bytes(buffer.extract_dup(0, buffer.get_size())))
            pipeline.set_state(Gst.State.NULL)


@pytest.mark.parametrize("quality", [30, 75, 90])
def test_a_changed_table_is_told(quality: int) -> None:
    whole = encoded(pictures()[1], cv2.IMWRITE_JPEG_QUALITY, quality)
    values = [at + 6 + n for at in places(whole, QUANTISERS) for n in range(63)]
    symbols = [at + 21 + n for at in places(whole, HUFFMAN) for n in range(12)]
    for at in values + symbols:
        for bit in (0, 3, 7):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            with pytest.raises(BadPicture, match="damaged JPEG"):
                decode_jpeg(bytes(changed))


def places(data: bytes, marker: bytes) -> Iterator[int]:
    at = data.find(marker)
    while at >= 0:
        yield at
        at = data.find(marker, at + 2)


def test_colours_of_different_kinds_are_told() -> None:
    whole = encoded(pictures()[1])
    frame = whole.find(b"\xff\xc0")
    for at in (frame + 15, frame + 18):  # the quantisation of either colour
        changed = bytearray(whole)
        changed[at] ^= 1
        assert fault_of_jpeg(bytes(changed)) == "colours of different kinds"


def test_a_table_of_ones_own_is_no_damage() -> None:
    """As some cameras have it: the standard's, with a finer mean; or other values in many places."""
    whole = encoded(pictures()[1], cv2.IMWRITE_JPEG_QUALITY, 75)
    at = whole.find(QUANTISERS) + 5
    finer = bytearray(whole)
    finer[at] = finer[at] * 3 // 4
    assert fault_of_jpeg(bytes(finer)) is None
    flatter = bytearray(whole)
    flatter[at + 4 : at + 64] = bytes(value * 2 // 3 for value in flatter[at + 4 : at + 64])
    assert fault_of_jpeg(bytes(flatter)) is None


def test_a_block_of_too_many_values_is_found_where_it_is_looked_for() -> None:
    picture, chance = pictures()[1], np.random.default_rng(5)
    for option, thorough in ((cv2.IMWRITE_JPEG_PROGRESSIVE, False), (cv2.IMWRITE_JPEG_OPTIMIZE, True)):
        whole, found = encoded(picture, option, 1), 0
        scan = whole.find(b"\xff\xda") + 14
        for _ in range(400):
            changed = bytearray(whole)
            changed[chance.integers(scan, len(whole) - 2)] ^= 1 << int(chance.integers(8))
            found += fault_of_jpeg(bytes(changed), thorough=thorough) == "a block of more than 64 values"
        assert found > 10


def test_a_picture_without_one_of_its_scans_is_told() -> None:
    """Cut between two scans and ended in order: a blurred picture that decodes without a warning."""
    picture = pictures()[1]
    colour = encoded(picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    grey = encoded(picture[:, :, 0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for whole in (colour, grey):
        scans = [found.start() for found in re.finditer(rb"\xff\xda", whole)]
        assert len(scans) > 4
        for begin, end in itertools.pairwise([*scans, len(whole) - 2]):
            for damaged in (whole[:begin] + whole[-2:], whole[:begin] + whole[end:]):
                with pytest.raises(BadPicture, match="damaged JPEG"):
                    decode_jpeg(damaged)
    assert (
        fault_of_jpeg(colour[: colour.rindex(b"\xff\xda")] + colour[-2:]) == "some of its scans are missing"
    )
    sound = decode_jpeg(colour + colour[:200])  # what follows the end does not matter
    assert np.array_equal(sound, decode_jpeg(colour))
