"""What is wrong in a JPEG that libjpeg reads over: values that no encoder writes.

The format has no checksum: changed bits that happen to make another valid picture cannot be told. What can be
told is told here.
"""

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_END: Final = b"\xff\xd9"
_ZEROS: Final = bytes(16)
_DQT, _DHT, _SOS, _EOI = 0xDB, 0xC4, 0xDA, 0xD9
_FRAMES: Final = {0xC0: False, 0xC1: False, 0xC2: True, 0xC9: False, 0xCA: True}
"""Markers of the kinds of picture that libjpeg decodes, and whether they are progressive."""
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""What ends the codes of a scan; within them stand other bytes after 0xff."""
_NOTHING_YET: Final = 99
_BASELINE, _PROGRESSIVE = frozenset({0xC0, 0xC1}), 0xC2
_TABLES: Final = frozenset({_DQT, _DHT, _SOS, _PROGRESSIVE}) | _BASELINE
_BRIGHTNESS: Final = 0x10  # the table for all values of a block but its mean
_END_OF_BLOCK: Final = b"\0"
_HIT: Final = 4
"""So many bytes of a table at most are other than the standard's: damage; more are a table of its own."""
_COARSE: Final = 4
"""Standard quantisation tables of a lower median differ by a few bytes among each other."""

Header = tuple[tuple[int, bytes], ...]
"""Marker and content of the segments on which pixels depend, up to the first scan."""


class _Judged(NamedTuple):
    fault: str | None
    is_progressive: bool
    has_scans: bool
    """Several, each of them with a part of the values."""
    may_hold_zeros: bool


def fault_of_jpeg(data: bytes, *, thorough: bool = False) -> str | None:
    """Say what is wrong with a JPEG that libjpeg decodes without a warning; None when nothing can be told.

    Args:
        data: from its first byte to its end marker; what follows does not matter.
        thorough: decode the codes of a baseline picture once more, with a reader that counts the values of
            each block; this takes as long as decoding. Progressive pictures always are.
    """
    header, at = _header(data)
    fault, is_progressive, has_scans, may_hold_zeros = _judged(header)
    if fault is not None:
        return fault
    if has_scans and _lacks_scans(data):
        return "some of its scans are missing"
    # Cameras write baseline, and zeros are looked for where they are not the code for the end of a block: so
    # many are blocks full of the value -1, valid and in no picture of a camera.
    if not may_hold_zeros and data.find(_ZEROS, at, data.rfind(JPEG_END)) >= 0:
        return "a part is overwritten with zeros"
    if (thorough or is_progressive) and _has_too_long_blocks(data):
        return "a block of more than 64 values"
    return None


def _header(data: bytes) -> tuple[Header, int]:
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        if marker in _TABLES:
            segments.append((marker, data[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker == _SOS:
            break
    return tuple(segments), at


@lru_cache(maxsize=64)  # a camera writes the same header again and again
def _judged(header: Header) -> _Judged:
    fault, is_baseline, is_progressive, is_whole, zeros_end_a_block = None, False, False, False, False
    components, huffman, quantisers, scanned = b"", list[tuple[int, bytes]](), list[bytes](), b""
    for marker, body in header:
        if marker in _BASELINE or marker == _PROGRESSIVE:
            is_baseline, is_progressive, components = marker in _BASELINE, marker == _PROGRESSIVE, body[6:]
        elif marker == _DQT:
            quantisers += _quantisers(body)
        elif marker == _DHT:
            huffman += _huffman_tables(body)
        elif marker == _SOS:
            scanned = body[1 : 1 + 2 * body[0]]
            is_whole = is_baseline and 3 * body[0] == len(components)
    for kind, table in huffman:
        symbols = table[16:]
        if len(set(symbols)) < len(symbols):
            fault = fault or "a value with two codes"
        zeros_end_a_block |= kind == _BRIGHTNESS and symbols[:1] == _END_OF_BLOCK
    if any(0 in table for table in quantisers):
        fault = fault or "a quantisation by zero"
    if any(_nearly_standard(table) for table in quantisers):
        fault = fault or "a quantisation table with a changed value"
    if is_baseline:
        fault = fault or _fault_in_standard_tables(huffman, components, scanned)
    return _Judged(fault, is_progressive, not is_whole, not is_whole or zeros_end_a_block)


def _lacks_scans(data: bytes) -> bool:
    """Whether the scans leave a value of a component without its last bit.

    A picture without its last scans is blurred, or without colours, and decodes without a warning.
    """
    bits_left, is_progressive = dict[int, NDArray[np.uint8]](), False
    for marker, body in _segments(data):
        if marker in _FRAMES:
            is_progressive = _FRAMES[marker]
            bits_left = {name: np.full(64, _NOTHING_YET, np.uint8) for name in body[6::3]}
        elif marker == _SOS and body:
            names, about = body[1 : 1 + 2 * body[0] : 2], body[1 + 2 * body[0] :]
            first, last, bits = about if is_progressive and len(about) == 3 else (0, 63, 0)
            for name in bits_left.keys() & set(names):
                bits_left[name][first : last + 1] = bits & 15
    return any(left.any() for left in bits_left.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give marker and content of all segments up to the end marker."""
    at = 2
    while (found := _MARKER.search(data, at)) and data[found.start() + 1] != _EOI:
        at = found.start()
        if at + 4 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def _quantisers(body: bytes) -> Iterator[bytes]:
    """Give the tables of 8-bit quantisers."""
    at = 0
    while at < len(body):
        is_wide = body[at] >> 4 > 0
        if not is_wide:
            yield body[at + 1 : at + 65]
        at += 129 if is_wide else 65


def _huffman_tables(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Give kind and content of each table: 16 counts, then the symbols, those with short codes first."""
    at = 0
    while at + 17 <= len(body):
        end = at + 17 + sum(body[at + 1 : at + 17])
        yield body[at], body[at + 1 : end]
        at = end


def _nearly_standard(table: bytes) -> bool:
    """Whether one or two values are others than in the table of a quality, 1 to 100, of libjpeg."""
    values = np.frombuffer(table, np.uint8)
    if len(values) != 64 or np.median(values) < _COARSE:
        return False
    standard = _standard().quantisers
    differing = standard != values
    nearest = differing.sum(axis=1).argmin()
    if differing[
        nearest, 0
    ]:  # some encoders choose the mean's by themselves, but not twice as coarse or fine
        ratio = int(values[0]) / int(standard[nearest, 0])
        return bool(differing[nearest].sum() <= 2 and not 0.5 < ratio < 2)
    return bool(0 < differing[nearest].sum() <= 2)


def _fault_in_standard_tables(
    huffman: list[tuple[int, bytes]], components: bytes, scanned: bytes
) -> str | None:
    """Judge the header of an encoder that uses the standard's four Huffman tables, as cameras do."""
    standard = _standard().huffman
    if {kind for kind, _ in huffman} != set(standard) or len(huffman) != len(standard):
        return None
    differing = [_bytes_differing(table, standard[kind]) for kind, table in huffman]
    if differing.count(0) < len(standard) - 1:
        return None
    if 0 < max(differing) <= _HIT:
        return "a Huffman table with a changed value"
    if len(components) == 9 and len(scanned) == 6:
        colours = components[4:6], components[7:9]
        if max(differing) == 0 and (colours[0] != colours[1] or scanned[3] != scanned[5]):
            return "colours of different kinds"
    return None


def _bytes_differing(table: bytes, other: bytes) -> int:
    return abs(len(table) - len(other)) + sum(a != b for a, b in zip(table, other, strict=False))


class _Standard(NamedTuple):
    huffman: dict[int, bytes]
    quantisers: NDArray[np.uint8]
    """200×64: of each quality, for brightness and for colours."""


@lru_cache(maxsize=1)
def _standard() -> _Standard:
    """Take the standard's tables from what libjpeg writes; each quality scales those of quality 50."""
    picture = np.zeros((8, 8, 3), np.uint8)
    written = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50])[1].tobytes()
    header, _ = _header(written)
    huffman = {
        kind: table for marker, body in header if marker == _DHT for kind, table in _huffman_tables(body)
    }
    halves = [table for marker, body in header if marker == _DQT for table in _quantisers(body)]
    base = np.array([list(table) for table in halves])
    scales = np.array([5000 // q if q < 50 else 200 - 2 * q for q in range(1, 101)])
    scaled = np.clip((base[None] * scales[:, None, None] + 50) // 100, 1, 255)
    return _Standard(huffman, scaled.reshape(-1, 64).astype(np.uint8))


def _has_too_long_blocks(data: bytes) -> bool:
    """Whether FFmpeg counts more than 64 values in a block; other things it may say are not judged."""
    import av

    context = av.CodecContext.create("mjpeg", "r")
    context.options = {
        "err_detect": "explode",
        "lowres": "3",
    }  # an eighth of the size: the codes alone matter
    context.thread_count = 1
    level = av.logging.get_level()
    if level is None:
        av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            try:
                context.decode(av.Packet(data))
            except av.FFmpegError:
                return any("error count" in text for _, _, text in said)
    finally:
        av.logging.set_level(level)
    return False
