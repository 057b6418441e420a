"""The place from which lines get their releases: a repository of The Update Framework (TUF), made of files.

``metadata/`` says what is there and is signed; ``targets/`` holds the files. Any web server, share or disk
may carry it: whoever can write there can withhold releases, and cannot alter them or bring back older ones.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from daemon.updates.release import Release, described, parse_release
from foundation.errors import InputError, refused_by_system
from foundation.files import sync_folder, write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    S = TypeVar("S", Root, Targets, Snapshot, Timestamp)

KEYS: Final = {
    "root": "names the other keys; keep it off every network",
    "releases": "signs releases; for those who may make one",
    "online": "says which state is the newest; for whatever renews that",
}
"""Role → what its key is for."""
_SIGNED: Final = {"root": ["root"], "releases": ["targets"], "online": ["snapshot", "timestamp"]}
"""Role → the metadata that its key signs."""
DAYS: Final = {"root": 730, "targets": 365, "snapshot": 30, "timestamp": 30}
"""How long metadata is good for when it is signed anew."""


def release_target(line: str) -> str:
    """Name the target that lists a line's newest release."""
    return f"{line}/release.json"


def file_target(sha256: str) -> str:
    """Name the target that holds a file; lines with the same engine share it."""
    return f"files/{sha256}"


def init(folder: Path, keys: Path) -> list[Path]:
    """Make an empty repository and its keys.

    Returns:
        The keys' files, and the root's: ``root.json``, by which lines know the repository.

    Raises:
        InputError: one of the files is there already, or a folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

    metadata = folder / "metadata"
    made = [keys / f"{role}.pem" for role in KEYS]
    for file in (*made, metadata / "timestamp.json"):
        if file.exists():
            raise InputError(f"{file}: is there already; expected a folder without it")
    try:
        for path in (metadata, folder / "targets", keys):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused_by_system(f"{error.filename}: cannot be made: {error.strerror}", error) from error
    private = {role: Ed25519PrivateKey.generate() for role in KEYS}
    for role, file in zip(KEYS, made, strict=True):
        _write_key(file, private[role])
    root = Root(expires=_in_days("root"), consistent_snapshot=True)
    signers = {role: CryptoSigner(key) for role, key in private.items()}
    for role, kinds in _SIGNED.items():
        for kind in kinds:
            root.add_key(signers[role].public_key, kind)
    with _locked(folder):
        _write_signed(folder, Metadata(root), signers["root"])
        shutil.copyfile(metadata / "1.root.json", folder / "root.json")
        _publish(folder, signers, Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))
    return [*made, folder / "root.json"]


def make(folder: Path, keys: Path, configs: Sequence[Path]) -> list[Release]:
    """Put new releases of lines into a repository, all of them or none.

    Raises:
        InputError: a config does not fit what it names, the keys are not those of the repository, or it
            cannot be written.
    """
    lines = [(path, *described(path)) for path in configs]
    names = [line for _, line, _ in lines]
    for path, line, _ in lines:
        if names.count(line) > 1:
            raise InputError(f"{path}: line {line} is named twice")
    signers = _signers(folder, keys, ("releases", "online"))
    with _locked(folder):
        targets, snapshot, timestamp = _newest(folder)
        current = _current(folder, targets.signed)
        made = []
        for path, line, files in lines:
            release = Release(
                format_version=1,
                line=line,
                number=1 + (current[line].number if line in current else 0),
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                config=files[0].path,
                files=files,
            )
            for file in files:
                content = _read(path.absolute().parent / file.path)
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    raise InputError(f"{path}: {file.path} was changed while it was read; try again")
                _store(folder, targets.signed, file_target(file.sha256), content)
            text = release.model_dump_json(indent=1) + "\n"
            _store(folder, targets.signed, release_target(line), text.encode())
            current[line] = release
            made.append(release)
        wanted = {release_target(line) for line in current}
        wanted |= {file_target(file.sha256) for release in current.values() for file in release.files}
        for target in set(targets.signed.targets) - wanted:
            del targets.signed.targets[target]
        _publish(folder, signers, targets, snapshot, timestamp)
    return made


def renew(folder: Path, keys: Path) -> dict[str, datetime]:
    """Sign anew what the keys that are there can sign.

    Returns:
        When each kind of metadata expires.

    Raises:
        InputError: the key ``online`` is missing, a key is another one than the repository's, or the
            repository cannot be written.
    """
    wanted = ["online", *(role for role in ("root", "releases") if (keys / f"{role}.pem").exists())]
    signers = _signers(folder, keys, wanted)
    with _locked(folder):
        root = _root(folder)
        if "root" in signers:
            root.signed.version += 1
            root.signed.expires = _in_days("root")
            _write_signed(folder, root, signers["root"])
        targets, snapshot, timestamp = _newest(folder)
        _publish(folder, signers, targets, snapshot, timestamp)
    return {part.signed.type: part.signed.expires for part in (root, targets, snapshot, timestamp)}


def change_key(folder: Path, keys: Path, role: str) -> Path:
    """Make a new key for a role; lines take it up by themselves, because the root's key signs the change.

    A new root key is signed by the former one, too: lines that know only that one follow.

    Returns:
        Where the former key lies now; nothing takes it any more.

    Raises:
        InputError: a key is missing or another one than the repository's, or something cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    signers = _signers(folder, keys, ["root"] if role == "root" else ["root", role, "online"])
    file, former = keys / f"{role}.pem", keys / f"{role}.former.pem"
    fresh = keys / f"{role}.new.pem"
    with _locked(folder):
        root, key = _root(folder), Ed25519PrivateKey.generate()
        _write_key(fresh, key)  # before anything is signed with it
        new = CryptoSigner(key)
        for signed in _SIGNED[role]:
            root.signed.revoke_key(signers[role].public_key.keyid, signed)
            root.signed.add_key(new.public_key, signed)
        root.signed.version += 1
        root.signed.expires = _in_days("root")
        _write_signed(folder, root, signers["root"], *([new] if role == "root" else []))
        sync_folder(folder / "metadata")
        write_whole(folder / "root.json", root.to_bytes())
        if role != "root":
            _publish(folder, signers | {role: new}, *_newest(folder))
        file.replace(former)
        fresh.replace(file)
    return former


def _publish(
    folder: Path,
    signers: "dict[str, CryptoSigner]",
    targets: "Metadata[Targets]",
    snapshot: "Metadata[Snapshot]",
    timestamp: "Metadata[Timestamp]",
) -> None:
    """Sign a new state; lines see it when the last file, the timestamp, has its name."""
    metadata = folder / "metadata"
    is_new = not (metadata / "timestamp.json").exists()
    step = 0 if is_new else 1
    if "releases" in signers:
        targets.signed.version += step
        targets.signed.expires = _in_days("targets")
        _write_signed(folder, targets, signers["releases"])
    snapshot.signed.version += step
    snapshot.signed.expires = _in_days("snapshot")
    snapshot.signed.meta["targets.json"].version = targets.signed.version
    _write_signed(folder, snapshot, signers["online"])
    timestamp.signed.version += step
    timestamp.signed.expires = _in_days("timestamp")
    timestamp.signed.snapshot_meta.version = snapshot.signed.version
    sync_folder(metadata)
    _write_signed(folder, timestamp, signers["online"])
    sync_folder(metadata)


def _write_signed(folder: Path, part: "Metadata[S]", signer: "CryptoSigner", *others: "CryptoSigner") -> None:
    part.sign(signer)
    for other in others:
        part.sign(other, append=True)
    name = f"{part.signed.type}.json"
    if part.signed.type != "timestamp":
        name = f"{part.signed.version}.{name}"
    write_whole(folder / "metadata" / name, part.to_bytes())


def _store(folder: Path, targets: "Targets", target: str, content: bytes) -> None:
    """Write a file under the name by which clients ask for it; its hash is in it, so none is ever changed."""
    from tuf.api.metadata import TargetFile

    targets.targets[target] = TargetFile.from_data(target, content, ["sha256"])
    path = _stored(folder, target, hashlib.sha256(content).hexdigest())
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    sync_folder(path.parent)


def _stored(folder: Path, target: str, sha256: str) -> Path:
    where, _, name = target.rpartition("/")
    return folder / "targets" / where / f"{sha256}.{name}"


def _current(folder: Path, targets: "Targets") -> dict[str, Release]:
    """Read the newest release of each line."""
    paths = [
        _stored(folder, name, target.hashes["sha256"])
        for name, target in targets.targets.items()
        if name.endswith("/release.json")
    ]
    releases = [parse_release(str(path), _read(path)) for path in paths]
    return {release.line: release for release in releases}


def _root(folder: Path) -> "Metadata[Root]":
    metadata = folder / "metadata"
    versions = [int(file.name.partition(".")[0]) for file in metadata.glob("[0-9]*.root.json")]
    if not versions:
        raise InputError(f"{folder}: is no repository; expected one that inspectctl release init made")
    return cast("Metadata[Root]", _parsed(metadata / f"{max(versions)}.root.json"))


def _newest(folder: Path) -> "tuple[Metadata[Targets], Metadata[Snapshot], Metadata[Timestamp]]":
    metadata = folder / "metadata"
    timestamp = cast("Metadata[Timestamp]", _parsed(metadata / "timestamp.json"))
    version = timestamp.signed.snapshot_meta.version
    snapshot = cast("Metadata[Snapshot]", _parsed(metadata / f"{version}.snapshot.json"))
    version = snapshot.signed.meta["targets.json"].version
    targets = cast("Metadata[Targets]", _parsed(metadata / f"{version}.targets.json"))
    return targets, snapshot, timestamp


def _parsed(path: Path) -> Any:
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError

    try:
        return Metadata.from_bytes(_read(path))
    except DeserializationError as error:
        raise InputError(f"{path}: is damaged; expected what inspectctl release wrote") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise refused_by_system(f"{path}: cannot be read: {error.strerror}", error) from error


def _signers(folder: Path, keys: Path, roles: Sequence[str]) -> "dict[str, CryptoSigner]":
    """Read keys, and see that the repository knows them."""
    from securesystemslib.signer import CryptoSigner

    from engine_runtime.signatures import private_key

    known = _root(folder).signed
    signers = {}
    for role in roles:
        file = keys / f"{role}.pem"
        signers[role] = CryptoSigner(private_key(file))
        if signers[role].public_key.keyid not in known.roles[_SIGNED[role][0]].keyids:
            raise InputError(
                f"{file}: is not the key that {folder} has for {role}; expected that of its init, or of its "
                "last change-key"
            )
    return signers


def _write_key(file: Path, key: "Ed25519PrivateKey") -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    write_whole(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


def _in_days(kind: str) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=DAYS[kind])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others from writing the same repository meanwhile."""
    path = folder / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise refused_by_system(f"{path}: cannot be written: {error.strerror}", error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
