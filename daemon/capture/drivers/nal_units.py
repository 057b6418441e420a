"""Bytes that no H.264 or H.265 stream holds: decoders read over them."""

import re
from typing import Final

_AMID: Final = re.compile(rb"\x00\x00(?:[\x00-\x02](?!\x00*\Z)|\x03[\x04-\xff])", re.DOTALL)
"""Three bytes up to 2, which the encoder breaks up by a 3, within a unit."""
_BETWEEN: Final = re.compile(rb"\x00\x00(?:\x02|\x03[\x04-\xff]|\x00+[\x02-\xff])", re.DOTALL)
"""The same where units begin with a start code: zeros may precede 0 0 1."""


def has_impossible_bytes(data: bytes, length_bytes: int) -> bool:
    """Whether a picture's units hold what the format excludes, as after a part was overwritten with zeros.

    Args:
        data: the packet of one picture.
        length_bytes: of the length in front of each unit; 0 where start codes stand between them.
    """
    if length_bytes == 0:
        return _BETWEEN.search(data) is not None
    at = 0
    while at + length_bytes <= len(data):
        begin = at + length_bytes
        at = begin + int.from_bytes(data[at:begin], "big")
        if at > len(data) or _AMID.search(data, begin, at) is not None:
            return True
    return at != len(data)


def length_bytes_of(extradata: bytes | None, codec: str) -> int:
    """Read from a stream's header how long the lengths in front of units are; 0: there are start codes."""
    if not extradata or extradata[0] != 1:
        return 0
    place = {"h264": 4, "hevc": 21}[codec]
    return (extradata[place] & 3) + 1 if len(extradata) > place else 0
