"""The seam of the data sets: every layout implements it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

GOOD = "good"
"""Name of the folder of good parts in every layout that has one, and of their group in reports."""


@dataclass(frozen=True)
class Good:
    """The images of good parts that training may see."""

    training: Sequence[Path]
    validation: Sequence[Path]
    """Empty where the layout has none: training then holds some of its own images out."""


@dataclass(frozen=True)
class Sample:
    """An image to be judged."""

    image: Path
    defect: str | None
    """Type of its defect; None for a good part."""
    masks: tuple[Path, ...] = ()
    """What is defective in it, each the size of the image; none where nobody drew any."""


class Taken(NamedTuple):
    """What a folder, or a list, of a data set is taken for."""

    place: Path
    images: int
    what: str
    """Good or defective, and what becomes of it, in ASCII: for people, before a training begins."""


class Saturation(NamedTuple):
    """From how many found pixels on a defect counts as found (MVTec LOCO)."""

    threshold: float
    """In pixels; a share of the defect's area when ``relative``."""
    relative: bool

    def area(self, pixels: int) -> int:
        """Give the saturation area of a defect of so many pixels."""
        return max(1, min(int(self.threshold * pixels if self.relative else self.threshold), pixels))


Saturations = Mapping[int, Saturation]
"""Value of a defect's pixels in its mask → its saturation."""


class DataSet(Protocol):
    """A data set on disk. Nothing is read before it is asked for, so training never touches test images."""

    root: Path
    """Against which file names are given."""

    def good(self) -> Good:
        """List the images for training.

        Raises:
            InputError: there are none, or a list of them cannot be read.
        """
        ...

    def taken(self) -> list[Taken]:
        """Say what is taken for what.

        Raises:
            InputError: a name is ambiguous, or a list cannot be read.
        """
        ...

    def test(self) -> list[Sample]:
        """List the images for evaluation, good ones first.

        Raises:
            InputError: there are no good or no defective ones, a folder of defects is empty, a mask or its
                image is missing, or a list cannot be read.
        """
        ...

    def saturations(self) -> Saturations | None:
        """Give the saturation thresholds; None in layouts that have none.

        Raises:
            InputError: their file is missing or is not as published.
        """
        ...
