"""MVTec AD: ``train/good``, ``test/good``, ``test/<defect>``, ``ground_truth/<defect>/<image>_mask.png``."""

from pathlib import Path

from foundation.errors import InputError
from models.datasets.data_set import Good, Sample
from models.datasets.defect_folders import samples_in
from pictures.frames import images_in


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
        return (path / "train" / "good").is_dir()

    def good(self) -> Good:
        return Good(images_in(self.root / "train" / "good"), ())

    def test(self) -> list[Sample]:
        if not (self.root / "test").is_dir():
            raise InputError(f"{self.root}: has no folder test; there is nothing to evaluate on")
        return samples_in(self.root / "test", self.root / "ground_truth")

    def saturations(self) -> None:
        return None
