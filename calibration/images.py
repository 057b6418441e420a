"""The images a calibration is made from."""

from dataclasses import dataclass
from pathlib import Path

from foundation.errors import InputError
from foundation.files import sha256
from pictures.digest import set_digest
from pictures.folder_names import check_good, named, role
from pictures.image_folder import images_in, is_folder, subfolders


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder, each content once: a copy of an image is no further evidence."""

    folder: Path
    files: list[Path]
    copies: int
    """Number of files left out because their content is in ``files`` already."""
    contents: dict[str, Path]
    """SHA-256 of a file → the first file that has it."""
    hashed: dict[Path, str]
    """Every file of the folder, copies too → its SHA-256."""

    def digest(self, root: Path) -> str:
        """Give the SHA-256 over all names within ``root`` and contents, as training computes it."""
        return set_digest(root, self.hashed, self.hashed)


def good_set(folder: Path) -> ImageSet:
    """List the images of good parts in a folder and its subfolders.

    Raises:
        InputError: the folder is missing, holds no image, is a data set, or a folder in it is not good by its
            name.
    """
    _refuse_splits(folder)
    good = named(folder, "good") if is_folder(folder) else None
    others = [path for path in subfolders(folder) if role(path) not in {"good", "masks"}] if good else []
    if good is not None and others:
        raise InputError(
            f"{folder}: is a data set with the folders {good.name} and {others[0].name}; name the folder of "
            "images in it"
        )
    if is_folder(folder):
        check_good(folder)
    return image_set(folder)


def defective_set(folder: Path) -> ImageSet:
    """List the images of defective parts in a folder and its subfolders.

    Raises:
        InputError: the folder is missing, holds no image, is a data set, or has a folder of good parts.
    """
    _refuse_splits(folder)
    good = named(folder, "good") if is_folder(folder) else None
    if good is not None:
        raise InputError(f"{good}: its name says that it holds good parts; expected defective ones")
    return image_set(folder)


def image_set(folder: Path) -> ImageSet:
    """List the images of a folder and its subfolders.

    Raises:
        InputError: the folder is missing, holds no image or cannot be read.
    """
    hashed = {file: sha256(file) for file in images_in(folder)}
    contents: dict[str, Path] = {}
    for file, content in hashed.items():
        contents.setdefault(content, file)
    return ImageSet(folder, list(contents.values()), len(hashed) - len(contents), contents, hashed)


def _refuse_splits(folder: Path) -> None:
    for path in subfolders(folder) if is_folder(folder) else ():
        if role(path) in {"train", "validation", "test"}:
            raise InputError(
                f"{folder}: is a data set with a folder {path.name!r}; name the folder of images in it"
            )


def check_disjoint(good: ImageSet, defective: ImageSet) -> None:
    """Raise InputError when an image is in both sets."""
    both = good.contents.keys() & defective.contents.keys()
    if both:
        file = defective.contents[min(both)]
        raise InputError(
            f"{file}: is among the good images too, as {good.contents[min(both)]} ({len(both)} such images); "
            "an image is good or defective"
        )


def is_training_set(good: ImageSet, training_digest: str | None) -> bool:
    """Say whether the good images are exactly those that the model was trained on."""
    # Training names files from its data folder, which may be that of an MVTec AD layout: train/good/….
    roots = (good.folder, *good.folder.parents[:2])
    return training_digest is not None and training_digest in {good.digest(root) for root in roots}
