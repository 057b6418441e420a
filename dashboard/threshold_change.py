"""Gives a line another threshold: a new calibration file, and the line reads it."""

import os
from pathlib import Path
from typing import Final

from calibration.calibration_file import read_calibration
from calibration.threshold_change import InUse
from foundation.errors import InputError
from lines.line_config import LineConfig
from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage

_RELOAD_S: Final = 60.0


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


def in_use(line: LineConfig, product: str | None) -> InUse:
    """Give the calibration file of a product, and how the line takes up another one.

    To take it up raises ``LineRefused`` or ``LineDidNotAnswer``: the line goes on with the old one.

    Raises:
        InputError: the line's config names none, or no control address, or the line wants a signed one.
    """
    control = line.control
    if control is None:
        raise InputError(f"{line.file}: control: found nothing; expected an address")
    if line.signed and line.signing_key is None:
        raise InputError(f"{line.file}: trusted_keys: expected a signing_key in the dashboard's config")

    def take_up() -> str:
        try:
            with LineControl(control, curve=line.curve, timeout_s=_RELOAD_S) as asked:
                return asked.reload()
        except ControlRefused as error:
            raise LineRefused(str(error)) from error
        except (ControlSilent, MalformedMessage) as error:
            raise LineDidNotAnswer(str(error)) from error

    return InUse(calibration_of(line, product), take_up, line.signing_key)
