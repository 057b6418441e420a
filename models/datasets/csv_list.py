"""A list in CSV: ``path,label,defect,mask,split``, files named relative to the list."""

from collections import Counter
from pathlib import Path

from foundation.errors import InputError
from models.datasets.csv_file import Row, rows
from models.datasets.data_set import GOOD, Good, Sample, Taken

DEFECTIVE = "defective"
"""Type of a defect to which the list gives none."""


class CsvList:
    """Images wherever they lie.

    Args:
        path: the list. ``label`` is good or defective, ``split`` is train, validation or test; ``defect``,
            the type of the defect, and ``mask`` may be empty or left out, several masks are joined by ``|``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parent

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        return path.suffix.lower() == ".csv" and not path.is_dir()

    def good(self) -> Good:
        listed = self._listed()
        for row, split, sample in listed:
            if split != "test" and sample.defect is not None:
                raise row.wrong("label", f"a defective part in split {split}; training sees good ones only")
        training = [sample.image for _, split, sample in listed if split == "train"]
        if not training:
            raise InputError(f"{self.path}: has no image of the split train")
        return Good(training, [sample.image for _, split, sample in listed if split == "validation"])

    def test(self) -> list[Sample]:
        samples = [sample for _, split, sample in self._listed() if split == "test"]
        good = [sample for sample in samples if sample.defect is None]
        defective = [sample for sample in samples if sample.defect is not None]
        for name, found in (("good", good), (DEFECTIVE, defective)):
            if not found:
                raise InputError(f"{self.path}: has no {name} image of the split test")
        return good + sorted(defective, key=lambda sample: sample.defect or "")

    def taken(self) -> list[Taken]:
        counts = Counter(
            f"{'good' if sample.defect is None else DEFECTIVE}: {'training' if split == 'train' else split}"
            for _, split, sample in self._listed()
        )
        return [Taken(self.path, count, what) for what, count in sorted(counts.items(), reverse=True)]

    def saturations(self) -> None:
        return None

    def _listed(self) -> list[tuple[Row, str, Sample]]:
        listed = []
        seen: dict[Path, int] = {}
        for row in rows(self.path, ("path", "label", "split"), ("defect", "mask")):
            split = row.one_of("split", ("train", "validation", "test"))
            image = row.file("path", self.root)
            if image in seen:
                raise row.wrong("path", f"{image} is already listed in line {seen[image]}")
            seen[image] = row.line
            if row.one_of("label", ("good", DEFECTIVE)) == "good":
                for column in ("defect", "mask"):
                    if row.cells[column]:
                        raise row.wrong(column, f"a good part has none, found {row.cells[column]!r:.60}")
                listed.append((row, split, Sample(image, None)))
                continue
            kind = " ".join(row.cells["defect"].split())
            if kind == GOOD:
                raise row.wrong("defect", f"a defective part is not of the type {GOOD}")
            names = row.cells["mask"].split("|") if row.cells["mask"] else []
            masks = tuple(
                row._replace(cells={"mask": name.strip()}).file("mask", self.root) for name in names
            )
            listed.append((row, split, Sample(image, kind or DEFECTIVE, masks)))
        return listed
