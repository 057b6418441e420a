"""Gives a line another threshold: a new calibration file, and the line reads it."""

import hashlib
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from calibration.calibration_file import (
    Calibration,
    ThresholdChange,
    calibration_text,
    read_calibration,
    write_text,
)
from engine_runtime.signatures import SigningKey, signature_of
from foundation.errors import InputError
from foundation.yaml_file import read_text
from lines.line_config import LineConfig
from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage

_RELOAD_S: Final = 60.0
_Z: Final = 1.6449
"""Of the normal distribution, for 90 %."""


class LineRefused(Exception):
    """The line did not take it up; the text is its own."""


class LineDidNotAnswer(Exception):
    """Nobody answered at the control address."""


def calibration_of(line: LineConfig, product: str | None) -> Path:
    """Name the calibration file of a product.

    Raises:
        InputError: the line's config names none.
    """
    found = line.products.get(product)
    if found is None:
        raise InputError(f"{line.file}: products: found none of the name {product}")
    return found.calibration


def why_not(line: LineConfig, product: str | None) -> tuple[str, str] | None:
    """Say why a threshold cannot be changed: a code and a detail; None when it can."""
    if line.control is None:
        return "no_control", f"{line.file}: control: found nothing; expected an address"
    if line.control.startswith("tcp:") and line.curve is None:
        return "no_control", f"{line.file}: control: a reload needs an ipc:// address, or keys (curve)"
    try:
        file = calibration_of(line, product)
        read_calibration(file)
    except InputError as error:
        return "no_calibration", str(error)
    if line.signed and line.signing_key is None:
        return "not_signed", (
            f"{line.file}: trusted_keys: the line takes signed calibrations alone; the dashboard's config "
            "names no signing_key for it"
        )
    if not os.access(file.parent, os.W_OK | os.X_OK):
        return "file_not_writable", f"{file.parent}: the dashboard may not write here"
    return None


def apply(
    line: LineConfig, product: str | None, threshold: float, *, by: str, reason: str, share: tuple[int, int]
) -> tuple[str, str, str, float]:
    """Write the calibration with another threshold and have the line take it up; or leave all as it was.

    Args:
        line: its config.
        product: whose threshold.
        threshold: the new one.
        by: name of the person.
        reason: in their words.
        share: how many parts of how many it would have rejected falsely, so far as is known.

    Returns:
        What the line said, the old file's text, the SHA-256 of the new one, and the old threshold.

    Raises:
        InputError: the file cannot be read or written.
        LineRefused: the line goes on with the old one.
        LineDidNotAnswer: likewise, or it is not there.
    """
    file = calibration_of(line, product)
    text = read_text(file, "a calibration")
    old = read_calibration(file, text)
    new = old.model_copy(
        update={
            "threshold": threshold,
            "false_reject_rate_interval": _interval(*share),
            "changed": ThresholdChange(
                by=by,
                reason=reason,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                before=old.threshold,
            ),
        }
    )
    said = _replaced(line, file, text, new)
    return said, text.decode(), digest(file), old.threshold


def put_back(line: LineConfig, product: str | None, text: str) -> tuple[str, str, str, float]:
    """Write an earlier calibration again, as it was; as ``apply``."""
    file = calibration_of(line, product)
    present = read_text(file, "a calibration")
    old = read_calibration(file, present)
    said = _replaced(line, file, present, text.encode())
    return said, present.decode(), digest(file), old.threshold


def digest(file: Path) -> str:
    """Give the SHA-256 of a file; empty where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _replaced(line: LineConfig, file: Path, before: bytes, after: Calibration | bytes) -> str:
    if line.control is None:
        raise InputError(f"{line.file}: control: found nothing; expected an address")
    mode = file.stat().st_mode & 0o777
    text = after if isinstance(after, bytes) else calibration_text(after)
    signature = _signature(file)
    if line.signing_key is not None:
        SigningKey(line.signing_key).sign(file, text)
    elif line.signed:
        raise InputError(f"{line.file}: trusted_keys: expected a signing_key in the dashboard's config")
    try:
        write_text(file, text, mode)
        with LineControl(line.control, curve=line.curve, timeout_s=_RELOAD_S) as control:
            return control.reload()
    except ControlRefused as error:
        _restore(file, before, mode, signature)
        raise LineRefused(str(error)) from error
    except (ControlSilent, MalformedMessage) as error:
        _restore(file, before, mode, signature)
        raise LineDidNotAnswer(str(error)) from error
    except BaseException:
        _restore(file, before, mode, signature)
        raise


def _signature(file: Path) -> bytes | None:
    try:
        return signature_of(file).read_bytes()
    except OSError:
        return None


def _restore(file: Path, text: bytes, mode: int, signature: bytes | None) -> None:
    if signature is not None:
        write_text(signature_of(file), signature)
    write_text(file, text, mode)


def _interval(rejected: int, total: int) -> tuple[float, float]:
    """Give Wilson's 90 % interval of a share: what the line's own parts say of false rejects."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = rejected / total, _Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, middle - half), min(1.0, middle + half)
