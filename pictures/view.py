"""What a model sees of a camera's picture: a region of it, after the part was brought to its place."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError
from pictures.frames import Frame, Roi, Size, cut_out
from pictures.locating.locator import Locator, NotLocated, Place
from pictures.locating.reference import Reference

Matrix = tuple[float, float, float, float, float, float]
"""The rows a, b, c and d, e, f of x' = ax + by + c, y' = dx + ey + f."""
UNMOVED: Matrix = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Levels = NDArray[np.integer | np.floating]


class Looked(NamedTuple):
    """What was seen of one picture."""

    seen: Frame
    """H×W×3 uint8, BGR: the region, in the picture's own pixels."""
    placed: Matrix | None
    """What takes a point of the reference's picture to this one; None where no part is looked for, or none
    was found."""
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
        return self.look_at_all(picture, 1)[0]

    def look_at_all(self, picture: Frame, parts: int) -> list[Looked]:
        """Give what is seen of each of several parts; see ``look``.

        Args:
            picture: H×W×3 uint8, BGR, whole.
            parts: how many there should be.

        Returns:
            As many: those that were found first, in rows from above and from left to right.
        """
        if self.locator is None:
            return [Looked(cut_out(picture, self.roi), None, None)] * parts
        wrong = self.locator.reference.fault_of(picture)
        if wrong is not None:
            raise InputError(wrong)
        return [self._looked(picture, place) for place in self.locator.locate_all(picture, parts)]

    def _looked(self, picture: Frame, place: Place | NotLocated) -> Looked:
        if self.locator is None or isinstance(place, NotLocated):
            reason = place.reason if isinstance(place, NotLocated) else None
            return Looked(cut_out(picture, self.roi), None, reason)
        reference = self.locator.reference
        a, b, c, d, e, f = place.picture_from_reference(reference).ravel().tolist()
        placed = (a, b, c, d, e, f)
        return Looked(straightened(picture, placed, self.roi or whole(reference.picture)), placed, None)


def straightened(picture: Frame, placed: Matrix, roi: Roi) -> Frame:
    """Bring a part to where the reference has it, in the size of the picture, and cut out a region there.

    What lies outside the picture continues its edge.

    Args:
        picture: H×W×3 uint8, BGR, whole.
        placed: see ``Looked.placed``.
        roi: the region, where the reference's picture has it.
    """
    matrix = np.array(placed).reshape(2, 3)
    matrix[:, 2] += matrix[:, :2] @ (roi.x, roi.y)
    seen: Frame = cv2.warpAffine(
        picture,
        matrix,
        (roi.width, roi.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.uint8, copy=False)
    return seen


def in_the_picture(seen: Levels, placed: Matrix, roi: Roi, picture: Size, beside: float) -> Levels:
    """Lay what was seen back over the camera's picture, where the part lies: undo ``straightened``.

    Args:
        seen: h×w or h×w×C, uint8 or float32: the region in any size.
        placed: see ``Looked.placed``.
        roi: the region, where the reference's picture has it.
        picture: height and width of the camera's picture.
        beside: what stands where nothing was seen.

    Returns:
        The whole picture in the scale of ``seen``.
    """
    right, below = seen.shape[1] / roi.width, seen.shape[0] / roi.height
    # The middles of pixels lie at whole numbers in each of these pictures.
    reference_from_seen = np.array(
        [[1 / right, 0, roi.x + 0.5 / right - 0.5], [0, 1 / below, roi.y + 0.5 / below - 0.5], [0, 0, 1]]
    )
    canvas_from_picture = np.array([[right, 0, 0.5 * right - 0.5], [0, below, 0.5 * below - 0.5], [0, 0, 1]])
    matrix = np.vstack([np.array(placed).reshape(2, 3), [0, 0, 1]])
    laid: Levels = cv2.warpAffine(
        seen,
        (canvas_from_picture @ matrix @ reference_from_seen)[:2],
        (max(1, round(picture.width * right)), max(1, round(picture.height * below))),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[beside] * 4,
    )
    return laid


def at(placed: Matrix, x: float, y: float) -> tuple[float, float]:
    """Give the point of the camera's picture for one of the reference's."""
    a, b, c, d, e, f = placed
    return a * x + b * y + c, d * x + e * y + f


def whole(picture: Size) -> Roi:
    """Give the region that is all of a picture."""
    return Roi(0, 0, picture.width, picture.height)
