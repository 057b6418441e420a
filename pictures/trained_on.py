"""What a model says, in its metadata, of the pictures it was trained on."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from foundation.errors import InputError
from pictures.digest import unpack_digests
from pictures.frames import Roi, parse_roi
from pictures.tiles import Tiles, parse_tiles

PIXEL_DIGESTS = "training_pixels"
"""Key of the model's metadata."""

Setting = TypeVar("Setting", Roi, Tiles, frozenset[int])


class TrainedOn(NamedTuple):
    """What of a picture the model saw; None where that was all of it, in one piece."""

    roi: Roi | None
    tiles: Tiles | None


def trained_on(metadata: Mapping[str, str]) -> TrainedOn:
    """Read the region and the tiles that training used.

    Args:
        metadata: of an ONNX file, or ``Manifest.model_metadata``.

    Raises:
        InputError: an entry cannot be read.
    """
    return TrainedOn(_entry(metadata, "roi", parse_roi), _entry(metadata, "tiles", parse_tiles))


def trained_pixels(metadata: Mapping[str, str]) -> frozenset[int]:
    """Read the ``pixel_digest`` of each picture that the weights learnt from; none in models of old versions.

    Raises:
        InputError: the entry cannot be read.
    """
    return _entry(metadata, PIXEL_DIGESTS, unpack_digests) or frozenset()


def _entry(metadata: Mapping[str, str], key: str, parse: Callable[[str], Setting]) -> Setting | None:
    text = metadata.get(key)
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError(f"the model's metadata: {key}: {error}") from error
