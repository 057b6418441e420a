"""Which images a folder holds: those that a person put there."""

import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundation.errors import InputError
from pictures.image_file import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES

MASKS = frozenset(
    {"mask", "masks", "maske", "masken", "groundtruth", "groundtruths", "gt", "label", "labels"}
    | {"annotation", "annotations", "segmentation", "segmentations"}
)
"""Folders that hold drawings of defects, not parts; see ``plain``."""
_NOT_BY_PEOPLE = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "$recycle.bin"}
    | {"recycler", "system volume information", "lost+found"}
)
"""What file managers, archives and disks put beside a person's files, in lower case."""


def plain(name: str) -> str:
    """Give a folder's name without case, spaces, dots, dashes and underscores: groundtruth."""
    return "".join(character for character in folded(name) if character not in " ._-")


def folded(name: str) -> str:
    """Give a name without case and in one spelling: ＮＧ is ng, and é one character, as on other systems."""
    return unicodedata.normalize("NFKC", name).casefold()


def is_folder(path: Path) -> bool:
    """Say whether there is a folder; a link to one counts.

    Raises:
        InputError: this cannot be found out, for want of permission.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder, by name, without hidden ones.

    Raises:
        InputError: the folder cannot be read.
    """
    return [path for path in _entries(folder) if is_folder(path)]


def images_in(folder: Path, *, masks: bool = False) -> list[Path]:
    """List the images of a folder and its subfolders, sorted by path.

    Links are followed; a folder that is reached twice counts once. Left out are hidden files and folders, the
    bins, caches and copies of file managers, and folders of masks.

    Args:
        folder: may itself be hidden, or called ``masks``.
        masks: list what lies in folders of masks, too.

    Raises:
        InputError: the folder does not exist or holds no image; it or a folder in it cannot be read.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: not a folder; expected a folder of images")
    found = sorted(_walk(folder, masks, set()))
    if not found:
        raise InputError(
            f"{folder}: holds no image; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


def _walk(folder: Path, masks: bool, visited: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    folders = []
    for path in _entries(folder):
        if is_folder(path):
            if masks or plain(path.name) not in MASKS:
                folders.append(path)
        # A link to nothing and a format that is not read count, so that reading names them.
        elif path.suffix.lower() in IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES and (
            path.is_file() or path.is_symlink()
        ):
            yield path
    # What lies here is found by its own name rather than by that of a link.
    for path in sorted(folders, key=lambda path: path.is_symlink()):
        yield from _walk(path, masks, visited)


def _entries(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return [
        path for path in paths if not path.name.startswith(".") and path.name.lower() not in _NOT_BY_PEOPLE
    ]


def files_of(paths: Iterable[Path]) -> list[Path]:
    """List images that a person names: files as they are, and what folders hold.

    Raises:
        InputError: a folder holds no image, or what is named is not there.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if is_folder(path):
            found |= dict.fromkeys(images_in(path))
        elif path.is_file():
            found[path] = None
        else:
            raise InputError(f"{path}: is not there; expected an image, or a folder of images")
    return list(found)
