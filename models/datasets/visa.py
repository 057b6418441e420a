"""VisA: ``<object>/Data/Images``, ``<object>/Data/Masks`` and, beside the objects, ``split_csv/1cls.csv``."""

from collections.abc import Iterator
from pathlib import Path

from foundation.errors import InputError
from models.datasets.csv_file import Row, rows
from models.datasets.data_set import Good, Sample, Taken

SPLIT = Path("split_csv") / "1cls.csv"
"""Of the published protocol for one class: training on nine in ten of the normal images."""
ANNOTATIONS = "image_anno.csv"
"""Names the types of defects of each image, where it is there."""


class Visa:
    """One object of VisA.

    Args:
        root: the object's folder, for instance ``VisA/candle``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = root.absolute().parent

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return (path / "Data" / "Images").is_dir()

    def good(self) -> Good:
        training = [row.file("image", self._top) for row in self._rows("train") if _normal(row)]
        if not training:
            raise InputError(f"{self._top / SPLIT}: has no normal training image of {self._name}")
        return Good(sorted(training), ())

    def test(self) -> list[Sample]:
        types = self._types()
        good, defective = [], []
        for row in self._rows("test"):
            image = row.file("image", self._top)
            if _normal(row):
                good.append(Sample(image, None))
            else:
                kind = types.get(row.cells["image"], "anomaly")
                defective.append(Sample(image, kind, (row.file("mask", self._top),)))
        for name, found in (("normal", good), ("anomalous", defective)):
            if not found:
                raise InputError(f"{self._top / SPLIT}: has no {name} test image of {self._name}")
        return good + sorted(defective, key=lambda sample: (sample.defect or "", sample.image))

    def taken(self) -> list[Taken]:
        return [Taken(self.root, len(self.good().training), "good: training")]

    def saturations(self) -> None:
        return None

    @property
    def _name(self) -> str:
        return self.root.absolute().name

    def _rows(self, split: str) -> Iterator[Row]:
        for row in rows(self._top / SPLIT, ("object", "split", "label", "image", "mask")):
            if row.cells["object"] == self._name and row.one_of("split", ("train", "test")) == split:
                yield row

    def _types(self) -> dict[str, str]:
        path = self.root / ANNOTATIONS
        if not path.is_file():
            return {}
        return {row.cells["image"]: row.cells["label"] for row in rows(path, ("image", "label", "mask"))}


def _normal(row: Row) -> bool:
    return row.one_of("label", ("normal", "anomaly")) == "normal"
