"""What FFmpeg says while it reads and decodes: of some damage it tells in no other way."""

import re
from typing import Final

import av

_SAID: Final = av.logging.Capture(local=False)

# Below the level of an error, and damage all the same.
_DAMAGE: Final = re.compile(
    "frame num gap|duplicating field|rtp: missed|max delay reached|continuity check failed|jitter buffer full"
    "|pes packet size mismatch|partial file|dropping old packet|packet corrupt"
    "|bytestream overread|tei flag set",
    re.IGNORECASE,
)


def listen() -> None:
    """Keep what FFmpeg says from now on, and print nothing of it."""
    if not av.logging.get_level():
        # Down to this level: it tells of missing H.264 pictures as of something to debug.
        av.logging.set_level(av.logging.DEBUG)
        av.logging.set_skip_repeated(False)
        _SAID.__enter__()


def complaint() -> str | None:
    """Give the first error, or word of damage, since the last call; None when there was none."""
    if not _SAID.logs:
        return None
    telling = (text for level, _, text in _SAID.logs if level <= av.logging.ERROR or _DAMAGE.search(text))
    first = next(telling, None)
    _SAID.logs.clear()
    return None if first is None else _one_line(first)


def error_of(part: str) -> str | None:
    """Give the first error that a part of FFmpeg, such as a demuxer, said since the last call."""
    errors = [text for level, name, text in _SAID.logs if level <= av.logging.ERROR and name == part]
    _SAID.logs.clear()
    return _one_line(errors[0]) if errors else None


def last_error() -> str | None:
    """Give the last error since the last call."""
    errors = [text for level, _, text in _SAID.logs if level <= av.logging.ERROR]
    _SAID.logs.clear()
    return _one_line(errors[-1]) if errors else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
