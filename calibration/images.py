"""The images a calibration is made from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import InputError
from foundation.files import sha256
from pictures.image_folder import images_in


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder, each content once: a copy of an image is no further evidence."""

    folder: Path
    files: list[Path]
    copies: int
    """Number of files left out because their content is in ``files`` already."""
    contents: dict[str, Path]
    """SHA-256 of a file → the first file that has it."""
    names_and_contents: list[tuple[Path, str]]
    """Every file of the folder, copies too, with its SHA-256."""

    def digest(self, root: Path) -> str:
        """Give the SHA-256 over all names within ``root`` and contents, as training computes it."""
        digest = hashlib.sha256()
        for file, content in self.names_and_contents:
            digest.update(f"{file.relative_to(root)}\n".encode())
            digest.update(bytes.fromhex(content))
        return digest.hexdigest()


def image_set(folder: Path) -> ImageSet:
    """List the images of a folder and its subfolders.

    Raises:
        InputError: the folder is missing, holds no image, or is a data set with ``train`` or ``test``.
    """
    for part in ("train", "test"):
        if (folder / part).is_dir():
            raise InputError(
                f"{folder}: is a data set with a folder {part!r}; name the folder of images in it"
            )
    hashed = [(file, sha256(file)) for file in images_in(folder)]
    contents: dict[str, Path] = {}
    for file, content in hashed:
        contents.setdefault(content, file)
    return ImageSet(folder, list(contents.values()), len(hashed) - len(contents), contents, hashed)


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
