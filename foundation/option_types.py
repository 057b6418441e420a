"""Numbers and files on the command line, read in one way by all commands; all are for argparse's ``type``."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

_MOST_DIGITS = 18


def file_name(text: str) -> Path:
    """Read the path of a file, whose name can be given another ending: neither "" nor "/" has a name."""
    path = Path(text)
    if not path.name:
        raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected the name of a file")
    return path


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Read a whole number in plain decimal digits, both ends included."""
    wanted = f"from {least}" + ("" if most is None else f" to {most}")

    def read(text: str) -> int:
        value = int(text) if re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text, re.ASCII) else -1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected a whole number {wanted}")
        return value

    return read


def number(
    least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Callable[[str], float]:
    """Read a finite number: from ``least`` to ``most``, both included, above and below two others."""
    ends = [(least, "from"), (above, "above"), (most, "to"), (below, "below")]
    wanted = " ".join(["a number", *(f"{name} {end:.7g}" for end, name in ends if math.isfinite(end))])

    def read(text: str) -> float:
        value = _finite(text)
        if value is None or not (least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected {wanted}")
        return value

    return read


def share(least: float, most: float) -> Callable[[str], float]:
    """Read a share, as a number such as ``0.01`` or in per cent such as ``1%``, both ends included."""

    def read(text: str) -> float:
        value = _finite(text.removesuffix("%"))
        if value is not None and text.endswith("%"):
            value /= 100
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"found {text!r:.60}, expected a share from {least:.7g} to {most:.7g}, such as 0.01 or 1%"
            )
        return value

    return read


def _finite(text: str) -> float | None:
    if not re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text, re.ASCII):
        return None  # float() takes more: nan, 1_000, digits of other scripts
    value = float(text)
    return value if math.isfinite(value) else None
