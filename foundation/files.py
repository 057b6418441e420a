import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from foundation.errors import InputError, refused_by_system

_RANDOM = "[a-z0-9_]" * 8
"""What ``tempfile`` adds to a name."""


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write a file so that readers see the old one or the whole new one, never a part.

    The block writes to a temporary file in the same folder; it takes the name ``path`` when the block ends
    and vanishes when the block raises.

    Raises:
        InputError: the folder of ``path`` does not exist or cannot be written, or ``path`` is no file;
            ``Unavailable`` when the disk is full or fails, at any step.
    """
    temporary = None
    try:
        _refuse_other_than_file(path)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        # One that names another file was raised by what the block read.
        if error.filename is None or temporary is None or str(error.filename) == str(temporary):
            raise _cannot_be_written(path, error) from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def write_whole(path: Path, content: bytes | memoryview, mode: int = 0o644) -> None:
    """Write a file at once, as ``replacing`` does.

    Raises:
        InputError: see ``replacing``.
    """
    with replacing(path, mode) as file:
        file.write(content)


def remove_left_over(folder: Path, names: str) -> None:
    """Remove what ``replacing`` left in a folder when its process or the machine died.

    Nobody else may write there.

    Args:
        folder: in which the files lie.
        names: of the files, a pattern such as ``*.png``.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in folder.glob(f".{names}.{_RANDOM}"):
        _remove(path)


def check_writable(path: Path, size: int = 1) -> None:
    """Find out before the work, not after it, that its result could not be written.

    Args:
        path: of the file that ``replacing`` is to write.
        size: bytes that it will take at the least; the disk must have room for them.

    Raises:
        InputError: see ``replacing``.
    """
    try:
        _refuse_other_than_file(path)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Find out before the work that files of these names could not be written into a folder.

    Args:
        folder: is made later where it does not exist; what it lies in must.
        names: of the files.

    Raises:
        InputError: see ``replacing``.
    """
    try:
        if folder.is_dir():
            for name in names or (".any",):
                check_writable(folder / name)
            return
        if folder.exists():
            raise InputError(f"{folder}: is a file; expected a folder")
    except OSError as error:
        raise _cannot_be_written(folder, error) from error
    check_writable(folder)


def _refuse_other_than_file(path: Path) -> None:
    """Refuse to write over a folder or a device: the name would be taken from it."""
    if path.is_dir():
        raise InputError(f"{path}: cannot be written: is a folder; expected the name of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be written: is no regular file")


def _cannot_be_written(path: Path, error: OSError) -> InputError:
    folder = path.parent
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        said = f"there is no folder {folder}"
    elif error.errno == errno.EACCES:
        said = f"no permission to write in the folder {folder}"
    else:
        said = error.strerror or str(error)
    return refused_by_system(f"{path}: cannot be written: {said}", error)


def _remove(temporary: Path | None) -> None:
    if temporary is not None:
        with suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a power cut could take a renaming back.

    Raises:
        OSError: the disk fails, or the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file's content as 64 hexadecimal digits.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise refused_by_system(f"{path}: cannot be read: {error.strerror}", error) from error
