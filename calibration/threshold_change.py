"""Gives a calibration another threshold: a new file, which a line takes up, or all stays as it was."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from calibration.calibration_file import (
    Calibration,
    ThresholdChange,
    calibration_text,
    read_calibration,
)
from engine_runtime.signatures import SigningKey, signature_of
from foundation.errors import InputError
from foundation.files import write_whole
from foundation.yaml_file import read_text

_Z: Final = 1.6449
"""Of the normal distribution, for 90 %."""


@dataclass(frozen=True)
class InUse:
    """A calibration file by which a line judges.

    Attributes:
        file: the calibration.
        take_up: has the line read it, and gives what it said; whatever it raises, the old file is put back.
        signing_key: with which a new file is signed; None: it is not.
    """

    file: Path
    take_up: Callable[[], str]
    signing_key: Path | None = None


@dataclass(frozen=True)
class Changed:
    """What became of a calibration.

    Attributes:
        said: by the line.
        text_before: the old file's content.
        before: the old threshold.
        threshold: the new one.
    """

    said: str
    text_before: str
    before: float
    threshold: float


def apply(used: InUse, threshold: float, *, by: str, reason: str, interval: tuple[float, float]) -> Changed:
    """Write the calibration with another threshold and have the line take it up; or leave all as it was.

    Args:
        used: the file.
        threshold: the new one.
        by: name of the person.
        reason: in their words.
        interval: of its false reject rate, as far as is known.

    Raises:
        InputError: the file cannot be read or written.
    """
    text = read_text(used.file, "a calibration")
    old = read_calibration(used.file, text)
    update = {
        "threshold": threshold,
        "false_reject_rate_interval": interval,
        "changed": _change(by, reason, old.threshold),
    }
    return _replaced(used, text, old, calibration_text(old.model_copy(update=update)))


def put_back(used: InUse, text: str) -> Changed:
    """Write an earlier calibration again, byte for byte; as ``apply``."""
    present = read_text(used.file, "a calibration")
    return _replaced(used, present, read_calibration(used.file, present), text.encode())


def go_back(used: InUse, *, by: str, reason: str) -> Changed:
    """Write what the calibration was before its last change, with who wanted it back; as ``apply``.

    Raises:
        InputError: there was no change, or it was of another engine.
    """
    kept = before_of(used.file)
    if not kept.exists():
        raise InputError(
            f"{kept}: found no such file, expected what the calibration was before its last change"
        )
    text = read_text(used.file, "a calibration")
    present, earlier = read_calibration(used.file, text), read_calibration(kept)
    if earlier.engine_sha256 != present.engine_sha256:
        raise InputError(
            f"{kept}: is of engine {earlier.engine_sha256[:12]}…, expected {present.engine_sha256[:12]}…, "
            f"that of {used.file.name}"
        )
    new = earlier.model_copy(update={"changed": _change(by, reason, present.threshold)})
    return _replaced(used, text, present, calibration_text(new))


def before_of(file: Path) -> Path:
    """Name the file that keeps what a calibration was before its last change."""
    return file.with_name(file.name + ".before")


def digest(file: Path) -> str:
    """Give the SHA-256 of a file; empty where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def counted_interval(rejected: int, total: int) -> tuple[float, float]:
    """Give Wilson's 90 % interval of a share: what counting says of false rejects, where no fit can."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = rejected / total, _Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def _change(by: str, reason: str, before: float) -> ThresholdChange:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return ThresholdChange(by=by, reason=reason, at=at, before=before)


def _replaced(used: InUse, before: bytes, old: Calibration, after: bytes) -> Changed:
    file, mode = used.file, used.file.stat().st_mode & 0o777
    signature = _signature(file)
    if used.signing_key is not None:
        SigningKey(used.signing_key).sign(file, after)
    try:
        write_whole(file, after, mode)
        said = used.take_up()
    except BaseException:
        if signature is not None:
            write_whole(signature_of(file), signature)
        write_whole(file, before, mode)
        raise
    write_whole(before_of(file), before, mode)
    return Changed(said, before.decode(), old.threshold, read_calibration(file).threshold)


def _signature(file: Path) -> bytes | None:
    try:
        return signature_of(file).read_bytes()
    except OSError:
        return None
