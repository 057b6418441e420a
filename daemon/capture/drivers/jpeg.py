"""JPEG pictures, decoded so that damage is noticed: most decoders fill what is missing and say nothing."""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import simplejpeg

from daemon.capture.drivers import BadPicture
from pictures.frames import Frame

END: Final = b"\xff\xd9"
_ZEROS: Final = bytes(16)
_DQT, _DHT, _SOF, _SOS = 0xDB, 0xC4, (0xC0, 0xC1), 0xDA
_BRIGHTNESS: Final = 0x10  # the table for all values of a block but its mean
_END_OF_BLOCK: Final = b"\0"


def decode_jpeg(data: bytes) -> Frame:
    """Decode a JPEG as H×W×3 uint8, BGR, taking each warning of libjpeg for an error.

    A picture that is cut short, lacks its end marker, holds codes that do not exist, or more or less data
    than its size needs, or is overwritten with zeros, is damaged. Changed bits that happen to make another
    valid picture cannot be told: the format has no checksum.

    Raises:
        BadPicture: it is damaged, or no JPEG.
    """
    try:
        pixels = simplejpeg.decode_jpeg(data, "BGR", strict=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise BadPicture(f"the picture is a damaged JPEG: {reason}", None) from error
    wrong = _wrong(data)
    if wrong is not None:
        raise BadPicture(f"the picture is a damaged JPEG: {wrong}", None)
    return np.asarray(pixels, np.uint8)


def _wrong(data: bytes) -> str | None:
    """Say what is in a JPEG that libjpeg reads over, and that no encoder writes.

    Zeros are looked for where they are not the code for the end of a block: so many are blocks full of the
    value -1, valid and in no picture of a camera. Progressive JPEG may hold some, as may one with a scan for
    each colour.
    """
    at, is_baseline, components, zeros_end_a_block = 2, False, 0, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in _SOF:
            is_baseline, components = True, body[5]
        elif marker == _DQT and _has_zero(body):
            return "a quantisation by zero"
        elif marker == _DHT:
            for kind, symbols in _huffman_tables(body):
                if len(set(symbols)) < len(symbols):
                    return "a value with two codes"
                zeros_end_a_block |= kind == _BRIGHTNESS and symbols[:1] == _END_OF_BLOCK
        elif marker == _SOS:
            is_whole = is_baseline and body[0] == components and not zeros_end_a_block
            overwritten = is_whole and data.find(_ZEROS, at, data.rfind(END)) >= 0
            return "a part is overwritten with zeros" if overwritten else None
    return None


def _has_zero(tables: bytes) -> bool:
    """Whether a table of 8-bit quantisers holds a zero."""
    at = 0
    while at < len(tables):
        is_wide = tables[at] >> 4 > 0
        if not is_wide and 0 in tables[at + 1 : at + 65]:
            return True
        at += 129 if is_wide else 65
    return False


def _huffman_tables(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Give kind and symbols of each table, those with the shortest codes first."""
    at = 0
    while at + 17 <= len(body):
        end = at + 17 + sum(body[at + 1 : at + 17])
        yield body[at], body[at + 17 : end]
        at = end
