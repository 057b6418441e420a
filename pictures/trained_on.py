"""What a model says, in its metadata, of the pictures it was trained on."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from foundation.errors import InputError
from pictures.digest import unpack_digests
from pictures.frames import Roi, Size, parse_roi
from pictures.locating.reference import Reference, parse_reference
from pictures.tiles import Tiles, parse_tiles

Setting = TypeVar("Setting", Roi, Tiles, Size, Reference, frozenset[int])

ROI, TILES, CAMERA_PICTURE, LOCATE = "roi", "tiles", "camera_picture", "locate"
PIXEL_DIGESTS = "training_pixels"
"""Keys of the metadata."""


class TrainedOn(NamedTuple):
    """What of a picture the model saw; None where that was all of it, in one piece."""

    roi: Roi | None
    """In the camera's picture, whether training or the recording cut it out."""
    tiles: Tiles | None
    camera_picture: Size | None = None
    """Height and width of the camera's whole picture; None where the images did not say."""
    reference: Reference | None = None
    """By which the part was brought to its place, before ``roi`` was cut out; None where it was not moved."""


def trained_on(metadata: Mapping[str, str]) -> TrainedOn:
    """Read the region, the tiles and the reference that training used.

    Args:
        metadata: of an ONNX file, or ``Manifest.model_metadata``.

    Raises:
        InputError: an entry cannot be read.
    """
    return TrainedOn(
        _entry(metadata, ROI, parse_roi),
        _entry(metadata, TILES, parse_tiles),
        _entry(metadata, CAMERA_PICTURE, _parse_size),
        _entry(metadata, LOCATE, parse_reference),
    )


def as_metadata(trained: TrainedOn) -> dict[str, str]:
    """Write what ``trained_on`` reads."""
    texts = {
        ROI: trained.roi and trained.roi.option,
        TILES: trained.tiles and str(trained.tiles),
        CAMERA_PICTURE: trained.camera_picture
        and f"{trained.camera_picture.height}x{trained.camera_picture.width}",
        LOCATE: trained.reference and trained.reference.text,
    }
    return {key: text for key, text in texts.items() if text}


def _parse_size(text: str) -> Size:
    sides = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text, re.ASCII)
    if sides is None:
        raise ValueError(f"found {text!r:.60}, expected HEIGHTxWIDTH in whole pixels")
    return Size(int(sides[1]), int(sides[2]))


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
