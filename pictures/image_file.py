"""Image files, read strictly: a damaged file is refused, where decoders fill the gap with some colour.

OpenCV decodes. Before that each format is checked for what OpenCV conceals, or only says on stderr: libjpeg's
warnings, the checksums and the end of a PNG, missing pages and strips of a TIFF, the length of a WebP. No
message of a library comes through.

What no checksum protects cannot be told from pixels: bytes that changed within a BMP, an uncompressed or LZW
TIFF or a WebP, and single bits of a JPEG where the codes go on to make sense. Files cut short are refused.
"""

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from foundation.errors import InputError, printable
from pictures.frames import Frame
from pictures.jpeg import fault_of_jpeg

if TYPE_CHECKING:
    from tifffile import TiffPage

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp"})
OTHER_IMAGE_SUFFIXES = frozenset(
    {
        ".gif",
        ".apng",
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".exr",
    }
)
"""Of images that are refused when they are read."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"})
"""The chunks that decide on pixels. libpng comments on mistakes in the others, such as colour profiles."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_HEADER = 8
_TIFF_JPEG, _TIFF_DEFLATE = 7, (8, 32946)
_MOST_BITS = 16
_TIFF_REDUCED = 1
"""A page that is a smaller copy of another."""
_NOT_CHECKED = "Could not determine subsampling"
"""TurboJPEG's word for the few JPEGs whose channels have sizes that it does not know."""
_LONGEST_REASON = 200

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class _Damaged(Exception):
    """Says after the file's name what is wrong with it: "is a damaged JPEG: …"."""


def read_image(path: Path) -> Frame:
    """Read an image as H×W×3 uint8, BGR, bit for bit as ``cv2.imread(path)`` reads a sound file.

    Grey images get three equal channels. Of 16 bits per channel the upper 8 are kept. Transparency is left
    out, without blending. A picture is turned as its EXIF orientation says. The content decides on the
    format, not the suffix. What follows the end of a JPEG or a PNG does not matter.

    Raises:
        InputError: the file is missing, cannot be read, is damaged, cut short (a JPEG without its end marker
            is), is not a PNG, JPEG, BMP, TIFF or WebP, or holds several pictures.
    """
    picture: Frame = _read(path, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)
    return picture


def read_unchanged(path: Path) -> NDArray[np.generic]:
    """Read an image with the channels and bits that it has: H×W or H×W×C, colours as BGR, BGRA.

    Raises:
        InputError: see ``read_image``.
    """
    return _read(path, cv2.IMREAD_UNCHANGED)


def _read(path: Path, flags: int) -> NDArray[np.generic]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        sound = _checked(content)
    except _Damaged as error:
        raise InputError(f"{path}: {error}") from error
    try:
        picture = cv2.imdecode(np.frombuffer(sound, dtype=np.uint8), flags)
    except cv2.error:
        picture = None
    if picture is None:
        raise InputError(f"{path}: is damaged, or an image that OpenCV cannot read")
    return picture


def _checked(content: bytes) -> bytes:
    """Give what OpenCV shall decode.

    Raises:
        _Damaged: that would conceal something.
    """
    if content.startswith(b"\xff\xd8"):
        check_jpeg(content)
    elif content.startswith(_PNG):
        return _checked_png(content)
    elif content.startswith(_TIFF):
        _check_tiff(content)
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        _check_webp(content)
    elif not content.startswith(b"BM"):
        raise _Damaged("is empty" if not content else "is not a PNG, JPEG, BMP, TIFF or WebP image")
    return content


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:_LONGEST_REASON]) or type(error).__name__


def check_jpeg(content: bytes) -> None:
    """Decode a JPEG in an eighth of its size, which reads every byte of it, and take warnings for errors.

    Raises:
        _Damaged: libjpeg warned, or read over something that no encoder writes.
    """
    try:
        simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        reason = _reason(error)
        if _NOT_CHECKED in reason:  # sound, perhaps: OpenCV reads it, and refuses it where it is cut short
            return
        if reason == "Premature end of JPEG file":
            raise _Damaged("is a JPEG that is cut short: its end marker is missing") from error
        raise _Damaged(f"is a damaged JPEG: {reason}") from error
    wrong = fault_of_jpeg(content, thorough=True)
    if wrong is not None:
        raise _Damaged(f"is a damaged JPEG: {wrong}")


def _checked_png(content: bytes) -> bytes:
    """Check the chunks of a PNG, and give it with those alone on which its pixels depend."""
    kept, place, kind = [_PNG], len(_PNG), b""
    while kind != b"IEND":
        if len(content) < place + 12:
            raise _Damaged("is a PNG that is cut short")
        (length,) = struct.unpack_from(">I", content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        if len(content) < end:
            raise _Damaged("is a PNG that is cut short")
        if zlib.crc32(content[place + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            raise _Damaged(f"is a damaged PNG: the checksum at byte {place} is wrong")
        if kind == b"acTL" and length == 8:
            _refuse_several(struct.unpack_from(">I", content, place + 8)[0], "pictures")
        if kind in _PNG_PIXELS or kind[:1].isupper():
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _check_tiff(content: bytes) -> None:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            pages = [
                page
                for page in file.pages
                if isinstance(page, tifffile.TiffPage) and not page.subfiletype & _TIFF_REDUCED
            ]
            _refuse_several(len(pages), "pages")
            for page in pages:
                _check_values(page)
                _check_strips(content, page)
    except _Damaged:
        raise
    except Exception as error:  # of a damaged file tifffile raises whatever its reading met
        raise _Damaged(f"is a damaged TIFF: {_reason(error)}") from error


def _check_values(page: "TiffPage") -> None:
    """Refuse values that OpenCV would make other grey levels of, or none."""
    if page.dtype is not None and (page.dtype.kind not in "ub" or page.dtype.itemsize * 8 > _MOST_BITS):
        raise _Damaged(f"is a TIFF of {page.dtype} values; expected whole numbers of 8 or 16 bits, unsigned")


def _check_strips(content: bytes, page: "TiffPage") -> None:
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        strip = content[start : start + length]
        if len(strip) < length:
            raise _Damaged("is a TIFF that is cut short")
        if start < _TIFF_HEADER:
            raise _Damaged("is a damaged TIFF: a part of its pixels lies nowhere")
        if page.compression in _TIFF_DEFLATE:
            zlib.decompress(strip)
        elif page.compression == _TIFF_JPEG:
            tables = page.jpegtables
            check_jpeg(strip if tables is None else tables[:-2] + strip[2:])


def _check_webp(content: bytes) -> None:
    (length,) = struct.unpack_from("<I", content, 4)
    if len(content) < length + 8:
        raise _Damaged("is a WebP that is cut short")
    if content[12:16] == b"VP8X" and content[20:21] and content[20] & 2:
        _refuse_several(content.count(b"ANMF"), "pictures")


def _refuse_several(count: int, what: str) -> None:
    if count > 1:
        raise _Damaged(f"holds {count} {what}; expected one picture in a file")
