"""One text chunk of a PNG file, right after its header, where it is found without reading the pixels."""

import struct
import zlib
from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
AFTER_HEADER: Final = 33  # the signature and the chunk IHDR


def with_text(png: bytes, keyword: bytes, text: bytes) -> bytes:
    """Put a text into a PNG file.

    Args:
        png: the file.
        keyword: what the text is, at most 79 bytes of ASCII.
        text: ASCII.
    """
    content = b"tEXt" + keyword + b"\0" + text
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return png[:AFTER_HEADER] + chunk + png[AFTER_HEADER:]


def text_in(head: bytes, keyword: bytes) -> bytes | None:
    """Find the text that ``with_text`` put into a file.

    Args:
        head: the file's first bytes, as many as the text may take; it is cut off where they are fewer.
        keyword: what the text is.

    Returns:
        None where the file is no PNG, or has no such text in that place.
    """
    start = AFTER_HEADER + 8
    if not head.startswith(_SIGNATURE) or not head[start - 4 :].startswith(b"tEXt" + keyword + b"\0"):
        return None
    (length,) = struct.unpack(">I", head[start - 8 : start - 4])
    return head[start + len(keyword) + 1 : start + length]
