"""Plain folders: ``good`` and a folder for each type of defect, masks in ``ground_truth/<defect>`` if any."""

from pathlib import Path

from foundation.errors import InputError
from foundation.files import sha256
from models.datasets.data_set import GOOD, Good, Sample
from models.datasets.defect_folders import samples_in
from pictures.frames import images_in

MASKS = "ground_truth"
HELD_OUT = 0.2
"""Share of the good images that training never sees, to evaluate on."""


class Folders:
    """Good and defective parts without a split.

    The good images whose content has the lowest SHA-256 are for the test: the choice is the same in training
    and evaluation, and an image that is added moves hardly any other to the other side.

    Args:
        root: holds ``good`` and the folders of defects.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return (path / GOOD).is_dir()

    def good(self) -> Good:
        test = self._held_out()
        return Good([image for image in images_in(self.root / GOOD) if image not in test], ())

    def test(self) -> list[Sample]:
        test = self._held_out()
        samples = samples_in(self.root, self.root / MASKS, without=(MASKS,))
        return [sample for sample in samples if sample.defect is not None or sample.image in test]

    def saturations(self) -> None:
        return None

    def _held_out(self) -> set[Path]:
        images = images_in(self.root / GOOD)
        if len(images) < 3:
            raise InputError(
                f"{self.root / GOOD}: holds {len(images)} images; expected at least 3, some for the test"
            )
        return set(sorted(images, key=sha256)[: max(1, round(HELD_OUT * len(images)))])


class GoodImages:
    """A folder of good images and nothing else: enough for training.

    Args:
        root: the folder; subfolders count.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return not any((path / part).is_dir() for part in ("train", "test"))

    def good(self) -> Good:
        return Good(images_in(self.root), ())

    def test(self) -> list[Sample]:
        raise InputError(
            f"{self.root}: is a folder of good images alone; to evaluate, give a data set with defects"
        )

    def saturations(self) -> None:
        return None
