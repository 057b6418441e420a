"""Opens a data set in whatever layout it has."""

from pathlib import Path
from typing import Protocol

from foundation.errors import InputError
from models.datasets.csv_list import CsvList
from models.datasets.data_set import DataSet
from models.datasets.folders import Folders, GoodImages
from models.datasets.mvtec_ad import MvtecAd
from models.datasets.mvtec_loco import MvtecLoco
from models.datasets.visa import Visa
from pictures.image_folder import is_folder


class Layout(DataSet, Protocol):
    """A data set that can be recognised."""

    def __init__(self, path: Path, /) -> None: ...

    @staticmethod
    def fits(path: Path) -> bool:
        """Say whether a path looks like this layout."""
        ...


LAYOUTS: dict[str, type[Layout]] = {
    "csv": CsvList,
    "mvtec-loco": MvtecLoco,
    "visa": Visa,
    "mvtec-ad": MvtecAd,
    "folders": Folders,
    "images": GoodImages,
}
"""In the order they are tried: MVTec LOCO would pass for MVTec AD, and anything for a folder of images."""


def open_data_set(path: Path, layout: str | None = None) -> DataSet:
    """Open a data set.

    Args:
        path: of one product: a folder, or a list in CSV.
        layout: a key of ``LAYOUTS``; recognised when None.

    Raises:
        InputError: there is nothing at ``path``, it cannot be read, no layout fits it, or the name of a
            folder in it is ambiguous.
    """
    if not is_folder(path) and not path.exists():
        raise InputError(f"{path}: does not exist; expected a folder of images or a list in CSV")
    if layout is not None:
        return LAYOUTS[layout](path)
    if path.is_file() and not CsvList.fits(path):
        raise InputError(f"{path}: is a file; expected a folder of images or a list in CSV")
    for kind in LAYOUTS.values():
        if kind.fits(path):
            return kind(path)
    raise InputError(
        f"{path}: has a folder train or test but no train/good, nor train/OK or the like; expected good "
        "images to train on"
    )
