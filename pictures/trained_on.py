"""What a model says, in its metadata, of the pictures it was trained on."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from foundation.errors import InputError
from pictures.frames import Roi, parse_roi
from pictures.tiles import Tiles, parse_tiles

Setting = TypeVar("Setting", Roi, Tiles)


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


def _entry(metadata: Mapping[str, str], key: str, parse: Callable[[str], Setting]) -> Setting | None:
    text = metadata.get(key)
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise InputError(f"the model's metadata: {key}: {error}") from error
