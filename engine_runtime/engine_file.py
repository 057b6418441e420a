"""The engine file (contract 2): a stored zip, ``manifest.json`` first, then the payload.

An engine whose proof is not complete brings the parity frames and the reference's answers in a third entry.
"""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from engine_runtime.engine import QUANTILES, SCORE
from engine_runtime.manifest import FORMAT_VERSION, Manifest
from engine_runtime.proof import Reference
from engine_runtime.signatures import TrustedKeys
from foundation.errors import EngineRefused, EngineUnavailable, may_pass
from foundation.files import replacing
from pictures.frames import Frame

MANIFEST = "manifest.json"
PARITY = "parity.npz"
_MANIFEST_LIMIT = 1 << 20
# All that zipfile raises over damaged bytes, beside its own BadZipFile.
_DAMAGE = (zipfile.BadZipFile, struct.error, ValueError, KeyError, EOFError, RuntimeError, OverflowError)


def write_engine(path: Path, manifest: Manifest, payload: bytes, parity: bytes | None = None) -> None:
    """Write an engine file whole or not at all; the same manifest and payload give the same bytes.

    Args:
        path: the file.
        manifest: what it says of itself.
        payload: what is executed.
        parity: from ``pack_parity``, where the proof is not complete.

    Raises:
        InputError: the folder of ``path`` cannot be written.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MANIFEST), manifest.model_dump_json(indent=2) + "\n")
        archive.writestr(zipfile.ZipInfo(manifest.payload), payload)
        if parity is not None:
            archive.writestr(zipfile.ZipInfo(PARITY), parity)


def pack_parity(frames: Sequence[Frame], reference: Reference) -> bytes:
    """Pack parity frames, all of one size, and what the reference answers to them."""
    packed = io.BytesIO()
    np.savez(packed, frames=np.stack(frames), quantiles=reference.quantiles, **reference.outputs)  # type: ignore[arg-type]
    return packed.getvalue()


def read_parity(path: Path, manifest: Manifest) -> tuple[list[Frame], Reference]:
    """Read the parity frames of an engine whose proof is not complete.

    Raises:
        EngineRefused: they are missing, were altered, or are of other sizes than the manifest says.
    """
    with _opened(path) as archive:
        content = _entry(path, archive, PARITY)
    if hashlib.sha256(content).hexdigest() != manifest.parity_sha256:
        raise EngineRefused(f"{path}: {PARITY} was altered: its SHA-256 is not the manifest's")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            frames, quantiles = arrays["frames"], arrays[QUANTILES]
            outputs: dict[str, NDArray[np.float32]] = {name: arrays[name] for name in manifest.outputs}
    except (*_DAMAGE, OSError) as error:
        raise EngineRefused(f"{path}: {PARITY} is damaged: {error}") from error
    count = len(frames)
    expected = dict.fromkeys(outputs, (count, *manifest.map_size)) | {SCORE: (count,)}
    if frames.shape[1:] != (*manifest.input_size, 3) or frames.dtype != np.uint8:
        raise EngineRefused(f"{path}: {PARITY} holds frames {frames.dtype} {frames.shape}, not the engine's")
    if quantiles.shape != (len(manifest.maps), 2):
        raise EngineRefused(f"{path}: {PARITY} holds quantiles {quantiles.shape}, not the engine's")
    if not count or any(outputs[name].shape != shape for name, shape in expected.items()):
        raise EngineRefused(f"{path}: {PARITY} holds maps of another size than the manifest says")
    return list(frames), Reference(quantiles, outputs)


def read_manifest(path: Path, trusted: TrustedKeys | None = None) -> Manifest:
    """Read what an engine file says about itself; the payload is neither read nor checked.

    Args:
        path: the file.
        trusted: one of these keys must have signed it; None where its origin does not matter.

    Raises:
        EngineRefused: the file is missing, not signed, not an engine file, or of another format version.
    """
    with _opened(path, trusted) as archive:
        return _manifest(path, archive)


def read_engine(path: Path, trusted: TrustedKeys | None = None) -> tuple[Manifest, bytes]:
    """Read an engine file and check its payload against the manifest's SHA-256; arguments as above.

    Raises:
        EngineRefused: as ``read_manifest``, or the payload was altered.
    """
    with _opened(path, trusted) as archive:
        manifest = _manifest(path, archive)
        payload = _entry(path, archive, manifest.payload)
    found = hashlib.sha256(payload).hexdigest()
    if found != manifest.payload_sha256:
        raise EngineRefused(
            f"{path}: the payload was altered: its SHA-256 is {found[:12]}…, "
            f"the manifest says {manifest.payload_sha256[:12]}…"
        )
    return manifest, payload


@contextmanager
def _opened(path: Path, trusted: TrustedKeys | None = None) -> Iterator[zipfile.ZipFile]:
    try:
        file: Path | io.BytesIO = path
        if trusted is not None:
            # What is read is what was checked, even if the file is exchanged meanwhile.
            content = path.read_bytes()
            trusted.check(path, content)
            file = io.BytesIO(content)
        with zipfile.ZipFile(file) as archive:
            yield archive
    except OSError as error:
        refused = EngineUnavailable if may_pass(error) else EngineRefused
        raise refused(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise EngineRefused(f"{path}: not an engine file, or a damaged one: {error}") from error


def _entry(path: Path, archive: zipfile.ZipFile, name: str, limit: int | None = None) -> bytes:
    if name not in archive.namelist():
        found = ", ".join(archive.namelist()[:4]) or "nothing"
        raise EngineRefused(f"{path}: holds no {name!r}; found {found}")
    entry = archive.getinfo(name)
    # A stored entry is exactly as long as its bytes in the file, so no size field can ask for more memory.
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise EngineRefused(f"{path}: entry {name!r} is compressed; engine files are stored")
    limit = path.stat().st_size if limit is None else limit
    if entry.file_size > limit:
        raise EngineRefused(
            f"{path}: entry {name!r} claims {entry.file_size} bytes; at most {limit} expected"
        )
    return archive.read(entry)


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    try:
        content = json.loads(_entry(path, archive, MANIFEST, _MANIFEST_LIMIT))
    except (ValueError, RecursionError) as error:
        raise EngineRefused(f"{path}: {MANIFEST} is not JSON: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise EngineRefused(
            f"{path}: format_version is {version!r}; this inspectd reads {FORMAT_VERSION}: build it again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise EngineRefused(
            f"{path}: {MANIFEST}: {key}: {first['msg']}, found {first['input']!r:.80}"
        ) from error
