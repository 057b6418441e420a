"""Takes releases from a repository: nothing that is older, altered, expired or of somebody else."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher
from urllib3.exceptions import HTTPError

from daemon.updates.release import MOST_BYTES, Release, ReleasedFile, parse_release
from daemon.updates.repository import file_target, release_target
from foundation.errors import InputError, Unavailable, refused_by_system
from foundation.files import write_whole

_SILENCE_S: Final = 30
"""After so long without a byte a server is not there."""


class Source:
    """A repository, as one line sees it.

    Args:
        address: its folder, or its URL.
        state: folder in which is kept what this line has seen of it.
        root: file ``root.json`` by which it is known; None: the one that was given first.

    Raises:
        InputError: it is not known yet, or not by this file.
    """

    def __init__(self, address: str, state: Path, root: Path | None) -> None:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it logs, an exception says too
        self.address = address
        url = urlsplit(address)
        is_folder = url.scheme not in {"http", "https"}
        if is_folder and "://" in address:
            raise InputError(f"--from: found {address}, expected a folder, http://… or https://…")
        if not is_folder and not url.hostname:
            raise InputError(f"--from: found {address}, expected https://HOST/…")
        if is_folder and not Path(address).is_dir():
            raise Unavailable(f"{address}: no such folder; expected one that inspectctl release init made")
        where = address.rstrip("/")
        # TUF's own copy has no name while it is exchanged.
        self._kept_root = state / "trusted.root.json"
        self._root = _trusted_root(address, self._kept_root, root)
        with _told(address):
            self._updater = Updater(
                str(state),
                f"{where}/metadata/",
                target_base_url=f"{where}/targets/",
                fetcher=_FromFolder() if is_folder else Urllib3Fetcher(_SILENCE_S),
                config=UpdaterConfig(),
                bootstrap=self._root,
            )

    def newest(self, line: str, scratch: Path) -> Release:
        """Give the newest release of a line.

        Args:
            line: its name.
            scratch: folder for what is downloaded.

        Raises:
            InputError: there is none, or what is there must not be trusted; ``Unavailable`` while it
                cannot be reached.
        """
        with _told(self.address):
            self._updater.refresh()
            write_whole(self._kept_root, self._root)
            target = self._updater.get_targetinfo(release_target(line))
            if target is None:
                raise InputError(f"{self.address}: holds no release of line {line}")
            if target.length > MOST_BYTES:
                raise InputError(
                    f"{self.address}: {target.path} has {target.length} bytes; expected a release"
                )
            file = scratch / "release.json"
            self._updater.download_target(target, str(file))
            release = parse_release(f"{self.address}: {target.path}", file.read_bytes())
        if release.line != line:
            raise InputError(f"{self.address}: {target.path} is of line {release.line}; expected {line}")
        return release

    def fetch(self, file: ReleasedFile, to: Path) -> None:
        """Download a file of a release that ``newest`` gave; errors as there."""
        with _told(self.address):
            target = self._updater.get_targetinfo(file_target(file.sha256))
            if target is None or target.hashes.get("sha256") != file.sha256 or target.length != file.size:
                raise InputError(f"{self.address}: {file.path} is not listed as the release names it")
            self._updater.download_target(target, str(to))


def _trusted_root(address: str, kept: Path, given: Path | None) -> bytes:
    """Read by what the repository is known."""
    if given is None and not kept.exists():
        raise InputError(
            f"{address}: not known yet; expected --root root.json, which inspectctl release init wrote"
        )
    file = given or kept
    try:
        content = file.read_bytes()
        (kept.parent / "root_history").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    try:
        known = Metadata.from_bytes(content).signed
    except DeserializationError as error:
        raise InputError(f"{file}: is no root.json of a repository") from error
    if known.type != "root":
        raise InputError(f"{file}: is {known.type}.json of a repository; expected its root.json")
    return content


class _FromFolder(FetcherInterface):
    """Reads a repository in a folder as if a server gave it."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            with Path(url).open("rb") as file:
                yield from iter(lambda: file.read(1 << 20), b"")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DownloadHTTPError(f"{url} is not there", 404) from error
        except OSError as error:
            raise DownloadError(f"{url}: {error.strerror}") from error


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Say in one line what is wrong with a repository."""
    try:
        yield
    except ExpiredMetadataError as error:
        raise InputError(
            f"{address}: has expired ({error}); expected one that inspectctl release renew keeps up, and the "
            "right time on this machine; the line runs on as it is"
        ) from error
    except BadVersionNumberError as error:
        raise InputError(
            f"{address}: is older than what this line has seen of it: {_one_line(error)}; "
            "expected its newest state"
        ) from error
    except UnsignedMetadataError as error:
        raise InputError(
            f"{address}: is not signed by the keys that this line knows: {_one_line(error)}"
        ) from error
    except (LengthOrHashMismatchError, DownloadLengthMismatchError) as error:
        raise InputError(f"{address}: was altered: {_one_line(error)}") from error
    except RepositoryError as error:
        raise InputError(f"{address}: is damaged, or no repository: {_one_line(error)}") from error
    except (DownloadError, HTTPError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "reason", None) or cause  # after some tries urllib3 says so at length
        raise Unavailable(f"{address}: cannot be reached: {_one_line(reason)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
