"""The releases on a line's machine, and the one exchange by which another one takes effect.

Beside ``line3.yaml`` lies the folder ``line3.releases``:

    current -> 8        the files that the line reads now
    8/ 7/               a release each
    own-1/              what was there before release 8, where it was no release
    state.json          what was installed, what is being tried, what was rolled back
    seen/               what this line has seen of the repository (TUF)

The line's files are links through ``current``: one renaming exchanges all of them. Whatever is killed, the
line finds either all of the old files or all of the new ones.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.config import load_config
from daemon.updates.release import Release, ReleasedFile, files_of, parse_release
from foundation.errors import InputError, Unavailable, refused_by_system
from foundation.files import sha256, sync_folder, write_whole

LIST: Final = "release.json"
SEEN: Final = "seen"
_CURRENT: Final = "current"


class Trial(BaseModel):
    """A release that has taken effect and is still watched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(description="that has its files")
    back: str = Field(description="folder of the files that were there before")


class State(BaseModel):
    """What has become of releases here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    folder: str | None = Field(default=None, description="of the release that the line has; None: of none")
    back: str | None = Field(default=None, description="folder of the files before that, for --back")
    trial: Trial | None = None
    rolled_back: dict[int, str] = Field(default_factory=dict, description="release → why")


class Installed:
    """The releases of the line that a config describes.

    Args:
        config: the line's config; links on the way to it are kept.
    """

    def __init__(self, config: Path) -> None:
        self.config = config.absolute()
        self.folder = self.config.parent / f"{config.stem}.releases"

    @property
    def state(self) -> State:
        """What has become of releases here.

        Raises:
            InputError: the file that says so is damaged.
        """
        path = self.folder / "state.json"
        try:
            return State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return State()
        except (ValidationError, OSError) as error:
            raise InputError(f"{path}: is damaged; expected what inspectctl update wrote") from error

    def note(self, state: State) -> None:
        """Write down what becomes of releases, whole or not at all."""
        write_whole(self.folder / "state.json", (state.model_dump_json(indent=1) + "\n").encode())
        sync_folder(self.folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other updates away meanwhile.

        Raises:
            Unavailable: one is running.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise refused_by_system(f"{self.folder}: cannot be written: {error.strerror}", error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Unavailable(f"{self.config}: another update of this line is running") from error
            yield
        finally:
            os.close(descriptor)

    def present(self) -> Path | None:
        """Give the folder that is in effect; None before the first release."""
        link = self.folder / _CURRENT
        return self.folder / link.readlink() if link.is_symlink() else None

    def changed(self) -> list[str]:
        """List the files of the installed release that were changed here since."""
        release = self.release_in(self.state.folder)
        if release is None:
            return []
        return [file.path for file in release.files if not _is_file(self.config.parent / file.path, file)]

    def release_in(self, folder: str | None) -> Release | None:
        """Tell which release a folder holds; None where it is none.

        Raises:
            InputError: what says so is damaged.
        """
        path = self.folder / (folder or "") / LIST
        if folder is None or not path.exists():
            return None
        return parse_release(str(path), path.read_bytes())

    def stage(self, release: Release, fetch: Callable[[ReleasedFile, Path], None]) -> Path:
        """Bring a release into its folder, whole or not at all; nothing takes effect yet.

        Args:
            release: which.
            fetch: downloads a file of it; files that the present release has, too, are copied.

        Raises:
            InputError: as ``fetch``, or the disk is full.
        """
        folder = self.folder / str(release.number)
        while folder.exists():
            if all(_is_file(folder / file.path, file) for file in release.files):
                return folder
            folder = folder.with_name(f"{folder.name}+")  # somebody has changed it, and may run on it
        part = folder.with_name(f"{folder.name}.part")
        present = self.present()
        _remove(part)
        for file in release.files:
            to = part / file.path
            to.parent.mkdir(parents=True, exist_ok=True)
            if present is not None and _is_file(present / file.path, file):
                shutil.copyfile(present / file.path, to)
            else:
                fetch(file, to)
            if not _is_file(to, file):
                raise InputError(f"{to}: is not the file of release {release.number}; was the disk full?")
            _sync(to)
        (part / LIST).write_text(release.model_dump_json(indent=1) + "\n")
        _sync(part / LIST)
        part.rename(folder)
        sync_folder(self.folder)
        return folder

    def keep_present(self, release: Release) -> Path:
        """See that the line's files are links through ``current``, without any change to what they hold.

        Args:
            release: that is to take effect; its files get links, too.

        Returns:
            The folder that holds what is in effect now.
        """
        places = [self.config.parent / file.path for file in release.files]
        paths = list(dict.fromkeys([*self._named_now(), *(place for place in places if place.exists())]))
        present = self.present()
        if present is None or not all(self._is_link(path) for path in paths):
            present = self._kept_copy(paths)
            self._point_to(present)
        for path in dict.fromkeys([*paths, *places]):
            self._put_link(path)
        return present

    def take_effect(self, folder: Path) -> None:
        """Exchange all files of the line for those of a folder, in one step."""
        self._point_to(folder)

    def forget_others(self) -> None:
        """Remove the folders of releases that are neither in effect nor the one before."""
        present, state = self.present(), self.state
        kept = {state.folder, state.back, _CURRENT, SEEN, present.name if present else None}
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in kept:
                _remove(folder)

    def _named_now(self) -> list[Path]:
        """List the line's config and what it names now."""
        return [self.config, *(file.absolute() for file in files_of(load_config(self.config)))]

    def _relative(self, path: Path) -> str:
        try:
            return path.relative_to(self.config.parent).as_posix()
        except ValueError as error:
            raise InputError(
                f"{self.config}: names {path}; expected a file in the folder of the config, to be exchanged "
                "with it"
            ) from error

    def _kept_copy(self, paths: Sequence[Path]) -> Path:
        """Copy what is in effect into a folder of its own."""
        number = 1
        while (folder := self.folder / f"own-{number}").exists():
            number += 1
        part = self.folder / f"{folder.name}.part"
        _remove(part)
        for path in paths:
            to = part / self._relative(path)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
            _sync(to)
        part.rename(folder)
        sync_folder(self.folder)
        return folder

    def _point_to(self, folder: Path) -> None:
        _exchange(self.folder / _CURRENT, folder.name)

    def _target(self, path: Path) -> str:
        return os.path.relpath(self.folder / _CURRENT / self._relative(path), path.parent)

    def _is_link(self, path: Path) -> bool:
        return path.is_symlink() and str(path.readlink()) == self._target(path)

    def _put_link(self, path: Path) -> None:
        if not self._is_link(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _exchange(path, self._target(path))


def _exchange(link: Path, target: str) -> None:
    """Have a name lead somewhere else, from one moment to the next, also when the power fails."""
    new = link.with_name(f".{link.name}.new")
    try:
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        raise refused_by_system(f"{link}: cannot be exchanged: {error.strerror}", error) from error


def _is_file(path: Path, file: ReleasedFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
