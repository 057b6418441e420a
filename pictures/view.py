"""What a model sees of a camera's picture: a region of it, after the part was brought to its place."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from pictures.frames import Frame, Roi, cut_out
from pictures.locating.locator import Locator, NotLocated, Place
from pictures.locating.reference import Reference

Levels = NDArray[np.integer | np.floating]


class Looked(NamedTuple):
    """What was seen of one picture."""

    seen: Frame
    """H×W×3 uint8, BGR: the region, in the picture's own pixels."""
    place: Place | None
    """Where the part lies; None where no part is looked for, or none was found."""
    lost: str | None
    """Why no part was found, where one was looked for: ``seen`` then shows the picture as it lies."""


@dataclass(frozen=True, slots=True)
class View:
    """How a model sees pictures. One object for training, calibration and the daemon.

    Attributes:
        roi: the region that is seen, where the reference's picture has it; all of it when None.
        locator: finds the part, which is then brought to where the reference has it; None leaves it.
    """

    roi: Roi | None
    locator: Locator | None = None

    @classmethod
    def of(cls, roi: Roi | None, reference: Reference | None) -> Self:
        """Make the view of a region, and of the part that a reference teaches."""
        return cls(roi, None if reference is None else Locator(reference))

    def see(self, picture: Frame) -> Frame:
        """Give what is seen of a picture.

        Args:
            picture: H×W×3 uint8, BGR, whole.

        Raises:
            InputError: the region does not lie inside it, or it does not show the part.
        """
        looked = self.look(picture)
        if looked.lost is not None:
            raise InputError(looked.lost)
        return looked.seen

    def look(self, picture: Frame) -> Looked:
        """Give what is seen of a picture, also where it does not show the part.

        Args:
            picture: H×W×3 uint8, BGR, whole.

        Raises:
            InputError: the region does not lie inside it, or it has another size than those of the reference.
        """
        if self.locator is None:
            return Looked(cut_out(picture, self.roi), None, None)
        wrong = self.locator.reference.fault_of(picture)
        if wrong is not None:
            raise InputError(wrong)
        place = self.locator.locate(picture)
        if isinstance(place, NotLocated):
            return Looked(cut_out(picture, self.roi), None, place.reason)
        return Looked(straightened(picture, self.locator.reference, place, self.roi), place, None)


def straightened(picture: Frame, reference: Reference, place: Place, roi: Roi | None = None) -> Frame:
    """Bring a part to where the reference has it, in the size of the picture, and cut out a region there.

    What lies outside the picture continues its edge.

    Args:
        picture: H×W×3 uint8, BGR, whole.
        reference: of the part.
        place: of the part in the picture.
        roi: the region, where the reference's picture has it; all of it when None.
    """
    height, width = reference.picture
    x, y, width, height = roi or (0, 0, width, height)
    matrix = place.picture_from_reference(reference)
    matrix[:, 2] += matrix[:, :2] @ (x, y)
    seen: Frame = cv2.warpAffine(
        picture,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.uint8, copy=False)
    return seen


def in_the_picture(
    seen: Levels, reference: Reference, place: Place, roi: Roi | None, beside: float
) -> Levels:
    """Lay what was seen back over the camera's picture, where the part lies: the inverse of ``straightened``.

    Args:
        seen: h×w or h×w×C, uint8 or float32: the region in any size.
        reference: of the part.
        place: of the part in the picture.
        roi: the region, where the reference's picture has it; all of it when None.
        beside: what stands where nothing was seen.

    Returns:
        The whole picture in the scale of ``seen``.
    """
    height, width = reference.picture
    x, y, across, down = roi or Roi(0, 0, width, height)
    right, below = seen.shape[1] / across, seen.shape[0] / down
    matrix = np.vstack([place.picture_from_reference(reference), [0, 0, 1]])
    # The middles of pixels lie at whole numbers in each of these pictures.
    reference_from_seen = np.array(
        [[1 / right, 0, x + 0.5 / right - 0.5], [0, 1 / below, y + 0.5 / below - 0.5], [0, 0, 1]]
    )
    canvas_from_picture = np.array([[right, 0, 0.5 * right - 0.5], [0, below, 0.5 * below - 0.5], [0, 0, 1]])
    laid: Levels = cv2.warpAffine(
        seen,
        (canvas_from_picture @ matrix @ reference_from_seen)[:2],
        (max(1, round(width * right)), max(1, round(height * below))),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[beside] * 4,
    )
    return laid
