"""MVTec AD: ``train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>/<image>_mask.png``.

The folders may go by other names, such as ``Train/OK`` and ``Test/NG``; ``train`` may hold the images itself.
"""

from pathlib import Path

from foundation.errors import InputError
from models.datasets.data_set import Good, Sample, Taken
from models.datasets.defect_folders import good_in, kinds_in, samples_in, taken_for
from pictures.folder_names import check_good, named
from pictures.image_folder import images_in, is_folder, subfolders


class MvtecAd:
    """One object of MVTec AD, or any data set laid out like it.

    Args:
        root: the object's folder, for instance ``mvtec_ad/bottle``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        train = named(path, "train") if is_folder(path) else None
        return train is not None and (named(train, "good") is not None or not subfolders(train))

    def good(self) -> Good:
        train = self._split("train", "to train on")
        validation = self._validation()
        return Good(_good_in(train), [] if validation is None else good_in(validation))

    def test(self) -> list[Sample]:
        test = self._split("test", "to evaluate on")
        return samples_in(test, named(test, "masks") or named(self.root, "masks"))

    def taken(self) -> list[Taken]:
        train, validation = self._split("train", "to train on"), self._validation()
        taken = taken_for(train, good="good: training", others="left out: training sees good parts only")
        if validation is not None:
            taken += taken_for(validation, good="good: validation", others="left out")
        test = named(self.root, "test")
        return (
            taken if test is None else [*taken, *taken_for(test, good="good: test", others="defective: test")]
        )

    def saturations(self) -> None:
        return None

    def _split(self, name: str, why: str) -> Path:
        split = named(self.root, "train" if name == "train" else "test")
        if split is None:
            raise InputError(f"{self.root}: has no folder {name}; there is nothing {why}")
        return split

    def _validation(self) -> Path | None:
        split = named(self.root, "validation")
        return split if split is not None and named(split, "good") is not None else None


def _good_in(train: Path) -> list[Path]:
    if named(train, "good") is not None or kinds_in(train):
        return good_in(train)
    check_good(train)
    return images_in(train)
