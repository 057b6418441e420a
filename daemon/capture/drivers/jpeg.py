"""JPEG pictures, decoded so that damage is noticed: most decoders fill what is missing and say nothing."""

import numpy as np
import simplejpeg

from daemon.capture.drivers import BadPicture
from pictures.frames import Frame
from pictures.jpeg import fault_of_jpeg


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
    wrong = fault_of_jpeg(data)
    if wrong is not None:
        raise BadPicture(f"the picture is a damaged JPEG: {wrong}", None)
    return np.asarray(pixels, np.uint8)
