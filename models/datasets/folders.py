"""Plain folders: ``good`` and a folder for each type of defect, masks in ``ground_truth/<defect>`` if any."""

from pathlib import Path

from foundation.errors import InputError
from foundation.files import sha256
from models.datasets.data_set import Good, Sample, Taken
from models.datasets.defect_folders import good_in, kinds_in, samples_in, taken_for
from pictures.folder_names import check_good, named, role
from pictures.image_folder import images_in, is_folder, subfolders

HELD_OUT = 0.2
"""Share of the good images that training never sees, to evaluate on."""


class Folders:
    """Good and defective parts without a split.

    The good images whose content has the lowest SHA-256 are for the test: the choice is the same in training
    and evaluation, and an image that is added moves hardly any other to the other side.

    Args:
        root: holds a folder called ``good``, ``OK``, ``normal`` … and the folders of defects.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return is_folder(path) and named(path, "good") is not None

    def good(self) -> Good:
        kinds_in(self.root)  # refuses what may be good or defective, before the training
        images = good_in(self.root)
        test = self._held_out(images)
        return Good([image for image in images if image not in test], ())

    def test(self) -> list[Sample]:
        test = self._held_out(good_in(self.root))
        samples = samples_in(self.root, named(self.root, "masks"))
        return [sample for sample in samples if sample.defect is not None or sample.image in test]

    def taken(self) -> list[Taken]:
        return taken_for(
            self.root, good=f"good: training, {HELD_OUT:.0%} of them test", others="defective: test"
        )

    def saturations(self) -> None:
        return None

    def _held_out(self, images: list[Path]) -> set[Path]:
        if len(images) < 3:
            good = named(self.root, "good")
            raise InputError(f"{good}: holds {len(images)} images; expected at least 3, some for the test")
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
        """Say whether a path looks like this layout.

        Raises:
            InputError: a folder in it is not good by its name.
        """
        if any(role(folder) in {"train", "test"} for folder in subfolders(path)):
            return False
        check_good(path)
        return True

    def good(self) -> Good:
        return Good(images_in(self.root), ())

    def test(self) -> list[Sample]:
        raise InputError(
            f"{self.root}: is a folder of good images alone; to evaluate, give a data set with defects"
        )

    def taken(self) -> list[Taken]:
        return [Taken(self.root, len(images_in(self.root)), "good: training")]

    def saturations(self) -> None:
        return None
